"""Send dead letters on their way again, and note that it was done.

A retry is a turn of its own: it has the old one's name with `.retry-1` behind it, and no deadline. So no loop takes it
for a turn that it has finished, cancelled or half answered, and no gateway for one whose client waits: that client has
had its one `failed`, and the new answer stands in `replies` for whoever looks. The letter stays where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple

import msgspec

from apps.dead_letters import RETRY_OF, STAGES_READ, Letter, Survey, letter_of, message_of, original, records
from pipeline.bus import Bus, Headers, Part, Record
from pipeline.errors import BusUnavailable, PenstockError
from pipeline.headers import DEADLINE, RETRIED, RETRY, TURN
from pipeline.journal import Fence
from pipeline.messages import DeadLetter, Done
from pipeline.topics import DEAD_LETTERS, HOUR_MS, TOKENS

LONGEST_TURN_MS = HOUR_MS
"""How far behind an answer's beginning its end is looked for."""


class CannotRetry(PenstockError):
    """A dead letter that cannot be sent again as things are."""


class NotMarked(PenstockError):
    """A dead letter was sent again, but not marked as retried."""


class Outcome(NamedTuple):
    """How a retry went: the name under which the turn runs again, or why it does not."""

    letter: Letter
    turn: str = ""
    problem: PenstockError | None = None


async def retry_all(
    bus: Bus, chosen: Sequence[Letter], found: Survey, *, per_s: float, stop: asyncio.Event
) -> AsyncGenerator[Outcome, None]:
    """Retry those `chosen` of what was `found`, one after the other until `stop`, at most `per_s` of them a second.

    Raises:
        BusUnavailable: the bus does not answer; those before were sent.
    """
    clock = asyncio.get_running_loop().time
    earliest = clock()
    async with aclosing(_whole(bus, chosen)) as letters:
        async for letter in letters:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(earliest):
                    await stop.wait()
            if stop.is_set():
                return
            earliest = clock() + 1 / per_s
            try:
                yield Outcome(letter, await retry(bus, letter, found.next_attempt(letter)))
            except BusUnavailable:
                raise
            except PenstockError as problem:
                yield Outcome(letter, problem=problem)


async def _whole(bus: Bus, chosen: Sequence[Letter]) -> AsyncGenerator[Letter, None]:
    """The letters `chosen`, with their values, as far as they are still there."""
    for number in sorted({letter.id.partition for letter in chosen}):
        part = Part(DEAD_LETTERS.name, number)
        offsets = {letter.id.offset for letter in chosen if letter.id.partition == number}
        start = max(min(offsets), await bus.offset_at(part, 0))
        async with aclosing(records(bus, part, start, max(offsets) + 1)) as reading:
            async for record in reading:
                if record.offset in offsets and (letter := letter_of(record)):
                    yield letter


async def retry(bus: Bus, letter: Letter, attempt: int) -> str:
    """Send `letter` again as retry number `attempt` of its turn, note it, and return the turn's name.

    What cannot be read is sent as it is, under the name in its header.

    Raises:
        CannotRetry: it cannot be sent as things are.
        NotMarked: it was sent, and the note could not be written.
        BusUnavailable: the bus does not answer; it may have been sent.
        MessageTooLarge: with the longer name it is larger than its topic takes.
        TopicMissing: its topic is gone.
    """
    dead = letter.dead
    if dead.topic not in STAGES_READ:
        raise CannotRetry(f"no stage reads topic {dead.topic!r}")
    values, turn = await _values(bus, dead), dead.turn
    if (message := message_of(dead.topic, values[0])) is not None:
        turn = RETRY_OF.format(letter.origin[1] or message.turn, attempt)
        values = [_renamed(value, turn) for value in values]
    kept = {name: text for name, text in dead.headers.items() if name != DEADLINE}
    headers = {**kept, **({TURN: turn} if turn else {}), RETRY: str(attempt)}
    partition = dead.partition if dead.partition < await bus.partitions(dead.topic) else None
    sent = [
        await bus.publish(dead.topic, value, key=dead.key, headers=headers, partition=partition) for value in values
    ]
    for one in sent:
        await one
    await _mark(bus, letter, headers)
    return turn


async def _values(bus: Bus, dead: DeadLetter) -> list[bytes]:
    """What is to be sent again: the record itself, or all records of its answer if it is the first of several."""
    if dead.value and dead.topic != TOKENS.name:
        return [dead.value]
    first = await original(bus, dead)
    if first is None:
        what = "it is one of several records" if dead.value else "it was too large for its letter"
        raise CannotRetry(f"{what}, and no longer in {dead.topic!r}")
    return [first.value] if dead.topic != TOKENS.name else await _answer(bus, first)


async def _answer(bus: Bus, first: Record) -> list[bytes]:
    """All records of the answer that begins with `first`."""
    begun = message_of(first.part.topic, first.value)
    if begun is None:
        raise CannotRetry("it is a piece of an answer; retry the letter of its turn")
    values, fence = [], Fence()
    async with aclosing(records(bus, first.part, first.offset, await bus.end(first.part))) as reading:
        async for record in reading:
            if record.timestamp > first.timestamp + LONGEST_TURN_MS:
                break
            message = message_of(first.part.topic, record.value) if fence.passes(record) else None
            if message is not None and (message.session, message.turn) == (begun.session, begun.turn):
                values.append(record.value)
                if isinstance(message, Done):
                    return values
    raise CannotRetry(f"its answer was never finished: its end is not in {first.part.topic!r}")


def _renamed(value: bytes, turn: str) -> bytes:
    """The message in `value` as another turn. Fields that only a newer version knows stay."""
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(value), "turn": turn})


async def _mark(bus: Bus, letter: Letter, headers: Headers) -> None:
    about = {name: headers[name] for name in (TURN, RETRY) if name in headers}
    about[RETRIED] = str(letter.id)
    try:
        await (
            await bus.publish(DEAD_LETTERS.name, b"", key=letter.dead.key, headers=about, partition=letter.id.partition)
        )
    except PenstockError as error:
        raise NotMarked(f"it was sent again, but could not be marked as retried: {error}") from error
