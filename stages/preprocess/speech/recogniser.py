"""What a speech recogniser is: pieces of sound in, words with their times out. `whisper.py` is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from stages.preprocess.speech.resample import Samples


class Heard(NamedTuple):
    """A word with the white space before it, and when it is said: seconds from the piece's beginning."""

    text: str
    start: float
    end: float

    @property
    def middle(self) -> float:
        """Half way through it."""
        return (self.start + self.end) / 2

    def earlier(self, seconds: float) -> Heard:
        """The same in a piece that begins so much later."""
        return Heard(self.text, max(self.start - seconds, 0.0), max(self.end - seconds, 0.0))


class Transcription(NamedTuple):
    """What is said in a piece of sound, and in which language (a code like `en`; "": nobody knows)."""

    words: tuple[Heard, ...] = ()
    language: str = ""


Urgency = Literal["final", "eager", "partial"]
"""How much a piece is needed: it is; it will be, unless the speaker goes on; it is nice to have."""


@dataclass(frozen=True, eq=False)
class Task:
    """A piece to recognise, in frames at 16 kHz, and how much that is needed.

    `language` "" is to be found out; `hint` is text that the words may be like.
    """

    frames: tuple[Samples, ...]
    urgency: Urgency = "final"
    session: str = ""
    tenant: str = ""
    language: str = ""
    hint: str = ""

    @property
    def counts(self) -> bool:
        """Whether what is said in it may be what stays; a `partial` one may be left out."""
        return self.urgency != "partial"

    @property
    def samples(self) -> int:
        """How long the piece is, at 16 kHz."""
        return sum(map(len, self.frames))


class Recogniser(Protocol):
    """Recognises pieces of at most `window_s` seconds; `name` is the model's."""

    name: str
    window_s: float

    def kind(self, task: Task) -> object:
        """What may share a batch: tasks of the same kind."""

    def recognise(self, tasks: Sequence[Task]) -> list[Transcription]:
        """What is said in each of `tasks`, all of one kind. Blocks; it is called by one thread at a time."""
