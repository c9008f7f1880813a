"""Dead letters: what stands in their topic, and which of them were retried.

Only reads. `retry.py` sends them again, `cli/dead_letters.py` shows them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, Self

import msgspec

from apps.discretion import discreet
from pipeline.bus import Bus, Headers, Part, Record
from pipeline.errors import BusUnavailable, TopicMissing, UndecodableMessage
from pipeline.headers import RETRIED, RETRY, TURN, number
from pipeline.messages import DeadLetter, Message
from pipeline.topics import CONTROL, DEAD_LETTERS, REPLIES, ROUTE, Topic

STALL_S = 20.0
"""Seconds without a record, although there are some, after which reading is given up."""

RETRY_OF = "{}.retry-{}"
"""The name of a turn that is retried, from its first name and the number of the retry."""

STAGES_READ: Mapping[str, Topic] = MappingProxyType(
    {topic.name: topic for topic in ROUTE if topic not in (REPLIES, CONTROL, DEAD_LETTERS)}
)


class Id(NamedTuple):
    """Where a letter stands in its topic; in words 0:17."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0:17`, or `17` alone.

        Raises:
            ValueError: it is neither.
        """
        partition, _, offset = text.rpartition(":")
        if not (offset.isdecimal() and (partition or "0").isdecimal()):
            raise ValueError(f"{text!r} is no dead letter's number, which looks like 0:17")
        return cls(int(partition or 0), int(offset))


class Note(NamedTuple):
    """A letter was retried: when (ms since 1970), as which retry of its turn, and under which name."""

    when: int
    attempt: int
    turn: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and where it stands. `when` is in ms since 1970, `size` that of its value in bytes.

    `reason` holds nothing of what the user said. In a survey, the value is left out.
    """

    id: Id
    when: int
    dead: DeadLetter
    session: str
    turn: str
    size: int
    reason: str

    @property
    def kind(self) -> str:
        """The name of the error."""
        return self.dead.error.partition(":")[0]

    @property
    def attempt(self) -> int:
        """Which retry it was that failed; 0 for the turn itself."""
        return _number(self.dead.headers)

    @property
    def origin(self) -> tuple[str, str]:
        """Key and name of the turn that failed in the first place."""
        return self.dead.key, _first_name(self.turn, self.attempt)


@dataclass(frozen=True)
class Wanted:
    """Which letters are asked for: those of a stage (also in a chain), of a session, and since a time (ms)."""

    stage: str | None = None
    session: str | None = None
    since: int = 0

    def __contains__(self, letter: Letter) -> bool:
        stage = letter.dead.stage
        return (
            letter.when >= self.since
            and (self.stage is None or self.stage in (stage, *stage.split("+")))
            and (self.session is None or self.session in (letter.session, letter.session.partition("/")[0]))
        )


ALL = Wanted()


@dataclass
class Survey:
    """The newest of the letters that were wanted, oldest first, and the notes on any letter.

    Of `total` letters, `matching` were wanted. The `strange` records are no letters.
    """

    letters: list[Letter] = field(default_factory=list)
    notes: defaultdict[Id, list[Note]] = field(default_factory=lambda: defaultdict(list))
    total: int = 0
    matching: int = 0
    strange: list[Id] = field(default_factory=list)
    attempts: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def next_attempt(self, letter: Letter) -> int:
        """The number of the next retry of the turn that `letter` comes from. No two have the same."""
        self.attempts[letter.origin] += 1
        return self.attempts[letter.origin]


# ---- reading -----------------------------------------------------------------------------------------------------


async def records(bus: Bus, part: Part, start: int, end: int) -> AsyncGenerator[Record, None]:
    """The records of `part` from offset `start` up to, and without, `end`."""
    position = start
    async with bus.reader({part: start}) as reader:
        while position < end:
            found = await reader.poll(limit=500, timeout=STALL_S)
            if not found:
                raise BusUnavailable(part.topic, f"nothing came from offset {position} on for {STALL_S:g} s")
            for record in found:
                if record.offset >= end:
                    return
                position = record.offset + 1
                yield record


async def survey(bus: Bus, wanted: Wanted = ALL, *, limit: int | None = None) -> Survey:
    """Read the topic from its beginning to its present end, and keep the newest `limit` of the letters `wanted`."""
    found = Survey()
    for place in range(await bus.partitions(DEAD_LETTERS.name)):
        part = Part(DEAD_LETTERS.name, place)
        newest: deque[Letter] = deque(maxlen=limit)
        async with aclosing(records(bus, part, await bus.offset_at(part, 0), await bus.end(part))) as reading:
            async for record in reading:
                letter = _noted(found, record)
                if letter is not None and letter in wanted:
                    found.matching += 1
                    newest.append(letter)
        found.letters += newest
    found.letters.sort(key=lambda letter: letter.when)
    if limit is not None:
        del found.letters[: max(0, len(found.letters) - limit)]
    return found


def _noted(found: Survey, record: Record) -> Letter | None:
    """Take `record` into account, and give back the letter, without its value, if it is one."""
    at = Id(record.part.number, record.offset)
    if RETRIED in record.headers:
        attempt, turn = _number(record.headers), record.headers.get(TURN, "")
        with suppress(ValueError):
            found.notes[Id.parse(record.headers[RETRIED])].append(Note(record.timestamp, attempt, turn))
        origin = record.key, _first_name(turn, attempt)
        found.attempts[origin] = max(found.attempts[origin], attempt)
        return None
    letter = letter_of(record)
    if letter is None:
        found.strange.append(at)
        return None
    found.total += 1
    found.attempts[letter.origin] = max(found.attempts[letter.origin], letter.attempt)
    return replace(letter, dead=msgspec.structs.replace(letter.dead, value=b"", traceback=""))


def letter_of(record: Record) -> Letter | None:
    """The dead letter in `record`; None if it is none."""
    try:
        dead: DeadLetter = DEAD_LETTERS.decode(record.value)
    except UndecodableMessage:
        return None
    message = message_of(dead.topic, dead.value)
    at = Id(record.part.number, record.offset)
    session, turn = (dead.session, dead.turn) if message is None else (message.session, message.turn)
    return Letter(at, record.timestamp, dead, session, turn, len(dead.value), discreet(dead, message))


async def fetch(bus: Bus, at: Id) -> Letter | None:
    """The letter at `at`, with its value; None if there is none."""
    record = await _record(bus, Part(DEAD_LETTERS.name, at.partition), at.offset)
    return None if record is None or RETRIED in record.headers else letter_of(record)


async def original(bus: Bus, dead: DeadLetter) -> Record | None:
    """The record that `dead` is about, if it is still in its topic."""
    try:
        record = await _record(bus, Part(dead.topic, dead.partition), dead.offset)
    except TopicMissing:
        return None
    same = record is not None and record.key == dead.key and dead.value in (b"", record.value)
    return record if same else None


async def _record(bus: Bus, part: Part, offset: int) -> Record | None:
    """The record at `offset`, if there is one."""
    if part.number >= await bus.partitions(part.topic):
        return None
    if not await bus.offset_at(part, 0) <= offset < await bus.end(part):
        return None
    async with aclosing(records(bus, part, offset, offset + 1)) as reading:
        return await anext(reading, None)


def message_of(topic: str, value: bytes) -> Message | None:
    """The message in a record that a stage reads from `topic`; None where it cannot be read."""
    try:
        message: Message = STAGES_READ[topic].decode(value)
    except (KeyError, UndecodableMessage):
        return None
    return message


def _first_name(turn: str, attempt: int) -> str:
    return turn.removesuffix(RETRY_OF.format("", attempt))


def _number(headers: Headers) -> int:
    return number(headers.get(RETRY, "")) or 0
