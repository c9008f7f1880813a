"""What the tests of the loop share: a way to run loops, to put turns on the bus, and to see what comes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from pipeline.bus import Bus, Headers, Part, Reader, Record
from pipeline.headers import REPLY_TO, TURN
from pipeline.loop import Loop, LoopSettings
from pipeline.messages import Message, Prompt, Tokens, Turn, Utterance
from pipeline.stage import Stage
from pipeline.topics import TOPIC_OF, Topic

QUICK = LoopSettings(commit_every=0.02, drain=2.0, patience=20.0)
DEADLINE = 20.0
"""Seconds after which a test that waits gives up."""


def make_turn(turn: str, session: str = "s") -> Turn:
    """A turn that asks nothing much."""
    return Turn(session, turn, conversation=(Utterance("user", "hello"),))


def make_prompt(turn: str, session: str = "s", ids: Iterable[int] = (1, 2, 3)) -> Prompt:
    """A prompt of a few tokens."""
    return Prompt(session, turn, ids=tuple(ids))


async def put(bus: Bus, message: Message, *, key: str | None = None, **headers: str) -> int:
    """Publish `message` as a gateway would, with a reply asked for on partition 0."""
    topic = TOPIC_OF[type(message)]
    everything = {REPLY_TO: "0", TURN: message.turn, **headers}
    value = topic.encode(message)
    return await (await bus.publish(topic.name, value, key=key or message.session, headers=everything))


async def published(
    bus: Bus, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
) -> int:
    """Publish raw bytes, and wait until they stand in the log."""
    return await (await bus.publish(topic, value, key=key, headers=headers, partition=partition))


@asynccontextmanager
async def running(loop: Loop) -> AsyncGenerator[asyncio.Task[None], None]:
    """`loop` at work and a member of its group; drained at the end unless it has ended by itself."""
    task = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(DEADLINE):
            while not loop.joined and not task.done():  # noqa: ASYNC110 - the loop has no event for its tests
                await asyncio.sleep(0.005)
            if loop.stage.cancellable and not task.done():
                await loop._cancelled.listening()
        yield task
        loop.drain()
        await asyncio.wait_for(task, DEADLINE)
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)


def make_loop(stage: Stage, bus: Bus, **options: Any) -> Loop:
    """A loop that commits often and drains quickly."""
    options.setdefault("settings", QUICK)
    return Loop(stage, bus, **options)


class Tap:
    """Reads a whole topic from its beginning, message by message."""

    def __init__(self, topic: Topic, reader: Reader) -> None:
        self._topic = topic
        self._reader = reader
        self._records: list[Record] = []

    async def record(self) -> Record:
        """The next record."""
        async with asyncio.timeout(DEADLINE):
            while not self._records:
                self._records += await self._reader.poll(limit=100, timeout=1.0)
        return self._records.pop(0)

    async def take(self, count: int) -> list[Any]:
        """The next `count` messages."""
        return [self._topic.decode((await self.record()).value) for _ in range(count)]

    async def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for `seconds`."""
        if not self._records:
            self._records += await self._reader.poll(limit=100, timeout=seconds)
        return not self._records


@asynccontextmanager
async def tapping(bus: Bus, topic: Topic) -> AsyncGenerator[Tap, None]:
    """A tap on `topic`."""
    start: dict[Part, int | None] = {Part(topic.name, n): 0 for n in range(await bus.partitions(topic.name))}
    async with bus.reader(start) as reader:
        yield Tap(topic, reader)


async def eventually(condition: Any, what: str = "the condition") -> None:
    """Wait until `condition()` is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - any condition can be waited for
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {DEADLINE} s") from None


def ids_of(messages: Iterable[Message]) -> list[int]:
    """The token ids of the Tokens among `messages`, by index, repeats cut."""
    ids: list[int] = []
    for message in messages:
        if isinstance(message, Tokens):
            assert message.index <= len(ids), f"a gap before {message.index}"
            ids += message.ids[len(ids) - message.index :]
    return ids
