"""What the log says of a run, and no client can see: each turn's tokens and ends, and when partitions were claimed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.bus import Bus, Part, Record
from pipeline.errors import BusUnavailable
from pipeline.headers import CLAIM, EPOCH
from pipeline.journal import Fence
from pipeline.messages import Delta, Done, Finished, Message, Tokens, Told, Turn
from pipeline.topics import REPLIES, SPEECH_OUT, TOKENS, TURNS
from pipeline.voice import Sentence, Spoken, Transcribed

READ_S = 120.0
"""Seconds for one partition."""

Id = tuple[str, str]
"""(session, turn)."""


class Owner(NamedTuple):
    """One that spoke in a turn: when it claimed the partition, and its first word there (seconds since 1970)."""

    epoch: str
    claimed: float
    spoke: float


@dataclass
class Logged:
    """One turn in the log: its partition, its tokens that count (by number), and how often it was said to end.

    `copies` counts tokens that stand in the log more than once and were left out by their number: a takeover's price.
    `owners` are the workers that spoke, one after the other.
    """

    part: int | None = None
    asked: int = 0
    tokens: dict[int, int] = field(default_factory=dict)
    copies: int = 0
    changed: list[int] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    characters: int = 0
    holes: int = 0
    acknowledged: bool = False

    @property
    def missing(self) -> int:
        """Tokens that were counted at the end and do not stand in the log."""
        return sum(number not in self.tokens for number in range(self.done[0])) if self.done else 0


@dataclass
class Said:
    """A spoken answer in the log: its sentences by their number, and how far its sound stands there (samples).

    `changed` are sentences that stand there twice and differ, `holes` counts pieces of sound before which some is
    missing, and `copies` the samples that stand there more than once: a takeover's price, left out by the gateway.
    """

    sentences: dict[int, Sentence] = field(default_factory=dict)
    changed: list[int] = field(default_factory=list)
    samples: int = 0
    copies: int = 0
    holes: int = 0
    over: bool = False


class Sound(NamedTuple):
    """How an answer must sound: how many samples, and in words how what was heard differs from it, if it does."""

    samples: int
    apart: str


@dataclass
class Audit:
    """All of the log: its turns, and when each claim of a partition of tokens was made (seconds since 1970).

    `heard` are all final transcripts of a turn of speech, by (session, item), `said` the answers that were spoken, and
    `sounds` what is known of their sound.
    """

    turns: defaultdict[Id, Logged] = field(default_factory=lambda: defaultdict(Logged))
    claims: dict[tuple[int, str], float] = field(default_factory=dict)
    fenced: int = 0
    heard: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    said: defaultdict[Id, Said] = field(default_factory=lambda: defaultdict(Said))
    sounds: dict[Id, Sound] = field(default_factory=dict)


async def audit(bus: Bus) -> Audit:
    """Read the whole log.

    Raises:
        BusUnavailable: it cannot be read to its end.
    """
    found = Audit()
    for topic, note in ((TURNS, _turn), (TOKENS, _tokens), (SPEECH_OUT, _sentence), (REPLIES, _reply)):
        for number in range(await bus.partitions(topic.name)):
            fence = Fence()
            async for record in whole(bus, Part(topic.name, number)):
                if CLAIM in record.headers:
                    found.claims[number, str(record.offset)] = record.timestamp / 1000
                if fence.passes(record):
                    note(found, record)
                elif CLAIM not in record.headers:
                    found.fenced += 1
    return found


async def whole(bus: Bus, part: Part) -> AsyncGenerator[Record, None]:
    """All records of `part`, from the first to the last there is now.

    Raises:
        BusUnavailable: they do not come in time.
    """
    end, position = await bus.end(part), 0
    deadline = time.monotonic() + READ_S
    if end == 0:
        return
    async with bus.reader({part: 0}) as reader:
        while position < end:
            if time.monotonic() > deadline:
                raise BusUnavailable(part.topic, f"{part} could not be read up to {end} within {READ_S:.0f} s")
            for record in await reader.poll(limit=5000, timeout=1.0):
                position = record.offset + 1
                if record.offset < end:
                    yield record


def _turn(found: Audit, record: Record) -> None:
    turn: Turn = TURNS.decode(record.value)
    logged = found.turns[turn.session, turn.turn]
    logged.part = record.part.number
    logged.asked += 1


def _tokens(found: Audit, record: Record) -> None:
    message: Tokens | Done = TOKENS.decode(record.value)
    logged = found.turns[message.session, message.turn]
    epoch = record.headers.get(EPOCH, "")
    if not logged.owners or logged.owners[-1].epoch != epoch:
        claimed = found.claims.get((record.part.number, epoch), 0.0)
        logged.owners.append(Owner(epoch, claimed, record.timestamp / 1000))
    if isinstance(message, Done):
        logged.done.append(message.usage.output_tokens)
        return
    for number, token in enumerate(message.ids, message.index):
        if number not in logged.tokens:
            logged.tokens[number] = token
            continue
        logged.copies += 1
        if logged.tokens[number] != token:
            logged.changed.append(number)


def _sentence(found: Audit, record: Record) -> None:
    message: Sentence = SPEECH_OUT.decode(record.value)
    said = found.said[message.session, message.turn]
    first = said.sentences.setdefault(message.index, message)
    if (first.at, first.text, first.last) != (message.at, message.text, message.last):
        said.changed.append(message.index)


def _spoken(said: Said, piece: Spoken) -> None:
    end = piece.at + len(piece.data) // 2  # callers get PCM
    said.holes += piece.at > said.samples
    said.copies += max(0, min(said.samples, end) - piece.at)
    said.samples = max(said.samples, end)
    said.over = said.over or piece.last


def _reply(found: Audit, record: Record) -> None:
    message: Message = REPLIES.decode(record.value)
    if isinstance(message, Transcribed):
        found.heard[message.session, message.item].append(message.text)
    elif isinstance(message, Spoken):
        _spoken(found.said[message.session, message.turn], message)
    if not (message.turn and isinstance(message, Delta | Finished | Told)):
        return
    logged = found.turns[message.session, message.turn]
    if isinstance(message, Told):
        logged.acknowledged = True
    elif isinstance(message, Finished):
        logged.finished.append(message)
    else:
        logged.holes += message.at > logged.characters
        logged.characters = max(logged.characters, message.at + len(message.text))
