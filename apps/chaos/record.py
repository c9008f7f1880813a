"""What is noted in a run, and nothing of how it came about: turns as their clients saw them, and faults as they went.

Times are seconds of this process' monotonic clock since the clients began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

from apps.chaos.plan import Fault, Question
from pipeline.voice import RATE

DIGEST = 16


class Piece(NamedTuple):
    """Text that came at once."""

    at: float
    text: str


@dataclass
class Turn:
    """One question, and all that its client was told of the answer.

    `name` is the same in each run: the script and the question in it. `ends` are the statuses of all terminal events;
    `said` is the text as the last of them has it, `code` why it failed. `via` are the gateways from which the client
    heard, and since when.
    """

    name: str
    client: int
    question: Question
    asked: float
    session: str = ""
    response: str = ""
    pieces: list[Piece] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    said: str = ""
    tokens: int = 0
    error: str = ""
    code: str = ""
    ended: float | None = None
    via: list[tuple[float, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The answer as it was streamed."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def complete(self) -> bool:
        """Whether it ended as an answer does."""
        return bool(self.ends) and self.ends[0] in ("completed", "incomplete")

    @property
    def put_off(self) -> bool:
        """Whether it was failed with a request to come back, because the log could not be written."""
        return self.ends == ["failed"] and self.code == "log_unavailable"

    @property
    def label(self) -> str:
        """How to find it: in a run, and in the log."""
        return f"turn {self.name} of client {self.client} (session {self.session or '?'}, {self.response or 'no id'})"

    def gateway(self, at: float) -> int | None:
        """The gateway that its client was connected to at that time."""
        return gateway_at(self.via, at)


@dataclass
class Heard:
    """A turn of speech, as its client was told of it: how often, and from where to where (ms of the session's audio).

    `pieces` are the words as they came, `finals` each final transcript; `error` says why there is none.
    """

    item: str
    at: float
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    committed: int = 0
    added: int = 0
    pieces: list[str] = field(default_factory=list)
    finals: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def text(self) -> str:
        """What was said in it."""
        return self.finals[0] if self.finals else ""

    @property
    def place(self) -> str:
        """Where it lies in the call."""
        return f"{'/'.join(map(str, self.starts)) or '?'} to {'/'.join(map(str, self.stops)) or '?'} ms"


def fingerprint(sound: bytes = b"") -> blake2b:
    """By what sound is told apart, so that it need not be kept."""
    return blake2b(sound, digest_size=DIGEST)


class Sounded(NamedTuple):
    """A piece of an answer's sound: when it came, how many samples there were with it, and the digest of all those."""

    at: float
    end: int
    digest: bytes


@dataclass
class Answer:
    """An answer to speech, as its client was told of it.

    `words` is its transcript as it came, `said` as the end has it; `closed` counts how often its sound was said to be
    over. `ends` are the statuses of all its ends, `code` why it failed.
    """

    ends: list[str] = field(default_factory=list)
    code: str = ""
    words: list[str] = field(default_factory=list)
    said: str = ""
    pieces: list[Sounded] = field(default_factory=list)
    samples: int = 0
    heard: blake2b = field(default_factory=fingerprint)
    closed: int = 0

    @property
    def put_off(self) -> bool:
        """Whether it was failed with a request to come back, because the log could not be written."""
        return self.ends == ["failed"] and self.code == "log_unavailable"

    def silences(self) -> list[tuple[float, float]]:
        """(when it was over, its seconds) for each time that all had been heard before more came."""
        found, begun = [], self.pieces[0].at if self.pieces else 0.0
        for before, piece in pairwise(self.pieces):
            if (late := piece.at - begun - before.end / RATE) > 0:
                found.append((piece.at, late))
                begun += late
        return found


@dataclass
class Call:
    """A recording that was played into a session: its turns of speech and the answers, by their ids.

    `again` counts the samples that were sent once more, `via` are the gateways that it was connected to, and since
    when.
    """

    recording: int
    caller: int
    began: float
    session: str = ""
    turns: dict[str, Heard] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    via: list[tuple[float, int]] = field(default_factory=list)
    reconnects: int = 0
    again: int = 0
    repeated_events: int = 0
    error: str = ""
    ended: float | None = None

    @property
    def label(self) -> str:
        """How to find it: in a run, and in the log."""
        return f"recording {self.recording} of caller {self.caller} (session {self.session or '?'})"


@dataclass
class Struck:
    """A fault as it went: from when `at` until when everything served again, and whom it struck.

    `parts` are the numbers of the partitions whose owner was struck, None where all may have been.
    """

    fault: Fault
    at: float
    victim: str = ""
    until: float | None = None
    parts: frozenset[int] | None = None
    gateway: int | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """How to find it."""
        return f"fault {self.fault.number} ({self.fault.name}{f' of {self.victim}' if self.victim else ''})"


@dataclass
class Record:
    """All of one run, whose clock began at `zero` (seconds since 1970).

    `troubles` are what clients met that no turn has: a session that could not be resumed, say. `late` is by how many
    seconds the clients themselves were late at most: where the machine has no time for them, it has none for the rest.
    """

    turns: list[Turn] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: list[Struck] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    reconnects: int = 0
    repeated_events: int = 0
    seconds: float = 0.0
    zero: float = 0.0
    late: float = 0.0


def gateway_at(via: Sequence[tuple[float, int]], at: float) -> int | None:
    """The gateway that a client was connected to at that time."""
    return next((number for since, number in reversed(via) if since <= at), None)


def near(faults: Sequence[Struck], begin: float, end: float | None) -> list[Struck]:
    """The faults that may have to do with what lasted from `begin` to `end`."""
    return [one for one in faults if (end is None or one.at <= end) and (one.until is None or one.until >= begin)]
