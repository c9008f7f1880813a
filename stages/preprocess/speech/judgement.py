"""Whether what a Whisper wrote was said: by OpenAI's own rule, which a model's folder may give other bounds.

Knows no library of models.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ModelLoadError

GENERATION = "generation_config.json"
"""The file of a model in which transformers, too, looks for the first two bounds, under the same names."""

NAMES = {"silence": "no_speech_threshold", "unlikely": "logprob_threshold", "hopeless": "logprob_floor"}

REPETITIVE = 2.4
"""Text that zlib shrinks by more than this repeats itself."""


class Bounds(NamedTuple):
    """Where belief ends; these are OpenAI's, for its own models.

    There was nothing where silence was more probable than `silence` and the mean log-probability of the words is below
    `unlikely`; nor was there, whatever the silence, where the latter is below `hopeless`.
    """

    silence: float = 0.6
    unlikely: float = -1.0
    hopeless: float = -2.0


class Spoken(NamedTuple):
    """What a model writes: text tokens, their mean log-probability, and the probability that there was no speech."""

    tokens: list[int]
    likelihood: float
    silence: float

    def believable(self, bounds: Bounds) -> bool:
        """Whether the model is not merely dreaming."""
        return self.likelihood > (bounds.unlikely if self.silence > bounds.silence else bounds.hopeless)


def bounds(folder: Path) -> Bounds:
    """Those of the model in `folder`: what its generation_config.json says, or else OpenAI's.

    A small model that is sure of its words, as one of a small domain is, has others: it may go by its silence alone
    (`"logprob_threshold": 0`), and words at which it hesitates were hardly ever said (`"logprob_floor": -0.7`).

    Raises:
        ModelLoadError: that file is none, or what it says are no numbers.
    """
    file = folder / GENERATION
    if not file.is_file():
        return Bounds()
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        given = {field: told.get(name) for field, name in NAMES.items()}
        return Bounds(**{field: float(value) for field, value in given.items() if value is not None})
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelLoadError(str(folder), f"{GENERATION}: {error}") from error


def repetitive(text: str) -> bool:
    """Whether `text` says the same again and again, as no speaker does."""
    data = text.encode()
    return len(data) > REPETITIVE * len(zlib.compress(data))
