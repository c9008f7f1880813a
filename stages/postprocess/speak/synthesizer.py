"""What speaks: text in, sound at 24 kHz out, with marks of how much of the text has been said where."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.voice import RATE

LETTERS_A_SECOND = 15
"""At the usual speed, in English: for those who do not tell where their words are."""

OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
"""The names that clients ask for, whatever speaks."""

_WORD = re.compile(r"\S+")

Samples = NDArray[np.int16]
Mark = tuple[int, int]
"""(characters of the text that have been said, sample of the utterance)."""


class Sound(NamedTuple):
    """The next samples of an utterance, at 24 kHz, and marks of it that were not told yet; those can be anywhere."""

    samples: Samples
    marks: tuple[Mark, ...] = ()


class Synthesizer(Protocol):
    """Speaks one text at a time for each who asks."""

    at_once: int
    """How many texts it is worth to give it at once."""

    def say(self, text: str, voice: str, speed: float) -> AsyncGenerator[Sound, None]:
        """Speak `text` by `voice` ("": the usual one; one that is not there is another's), `speed` times as fast.

        Closing the generator gives it up.

        Raises:
            SynthesisFailed: it cannot be spoken.
        """
        ...


def spread(text: str, samples: int) -> Iterator[Mark]:
    """Marks where each word but the first begins, if `text` is said evenly in `samples`."""
    for match in _WORD.finditer(text):
        if match.start():
            yield match.start(), samples * match.start() // len(text)


def guessed_length(text: str, speed: float) -> int:
    """About how many samples it takes to say `text`."""
    return round(len(text) / LETTERS_A_SECOND / speed * RATE)
