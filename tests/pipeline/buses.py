"""What the tests of the buses share: topics, a bus of either kind, and a listener that notes what it is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Protocol

from pipeline.bus import Bus, Headers, Member, Part, Record
from pipeline.kafka import KafkaBus, KafkaSettings, create_topics
from pipeline.kafka.member import KafkaMember
from pipeline.memory import MemoryBus, MemoryMember
from pipeline.messages import Turn
from pipeline.topics import Topic
from tests.services import KafkaService

DEADLINE = 20.0
"""Seconds after which a test that waits gives up."""

PARTITIONS = 4
LIMIT = 64 << 10
"""Bytes of the largest record."""

MANY = Topic("many", Turn)
ONE = Topic("one", Turn, partitions=1)
ROUTE = (MANY, ONE)
FIRST = Part("one", 0)

Made = Callable[[], Bus]


class Polled(Protocol):
    """A member or a reader."""

    async def poll(self, *, limit: int, timeout: float) -> Any:
        """See `Member.poll`."""


class Peer:
    """A listener that keeps what it owns and notes each call; `at_revoked` is awaited in a revocation."""

    def __init__(self, at_revoked: Callable[[], Awaitable[None]] | None = None) -> None:
        self.parts: frozenset[Part] = frozenset()
        self.calls: list[tuple[str, frozenset[Part]]] = []
        self._at_revoked = at_revoked

    async def revoked(self, parts: Collection[Part]) -> None:
        """Note it."""
        self.calls.append(("revoked", frozenset(parts)))
        if self._at_revoked is not None:
            await self._at_revoked()

    async def assigned(self, parts: Collection[Part]) -> None:
        """Note it, and what is owned from now on."""
        self.parts = frozenset(parts)
        self.calls.append(("assigned", self.parts))


@asynccontextmanager
async def memory_bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus in memory, with the topics."""
    async with MemoryBus(ROUTE, partitions=PARTITIONS, max_message=LIMIT) as bus:
        yield bus


def settings_for(kafka: KafkaService, **options: Any) -> KafkaSettings:
    """Settings for a test's own topics and groups, and quick to notice what is amiss."""
    quick = {"session_timeout_ms": 1500, "rebalance_timeout_ms": 5000, "max_request_bytes": LIMIT}
    return KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=f"{uuid.uuid4().hex[:12]}.", **{**quick, **options})


@asynccontextmanager
async def kafka_bus(settings: KafkaSettings) -> AsyncGenerator[KafkaBus, None]:
    """A bus in Kafka, with the topics."""
    await create_topics(settings, ROUTE, partitions=PARTITIONS)
    async with KafkaBus(settings) as bus:
        yield bus


async def crash(member: Member) -> None:
    """Let a member vanish without a word to its group."""
    if isinstance(member, MemoryMember):
        await member.crash()
    else:
        assert isinstance(member, KafkaMember)

        async def silence() -> None:
            return

        member._consumer._coordinator._maybe_leave_group = silence
        await member.close()


async def publish(
    bus: Bus,
    topic: Topic,
    value: bytes,
    *,
    key: str = "k",
    headers: Headers | None = None,
    partition: int | None = None,
) -> int:
    """Publish, and return the offset once it is there."""
    sent = await bus.publish(topic.name, value, key=key, headers=headers or {}, partition=partition)
    return await asyncio.wait_for(sent, DEADLINE)


async def fill(bus: Bus, topic: Topic, count: int, *, partition: int | None = None, start: int = 0) -> None:
    """Publish the numbers from `start` on, the key of each being the number itself."""
    sent = [
        await bus.publish(topic.name, b"%d" % n, key=str(n), headers={}, partition=partition)
        for n in range(start, start + count)
    ]
    await asyncio.wait_for(asyncio.gather(*sent), DEADLINE)


async def take(source: Polled, count: int, *, limit: int = 1000) -> list[Record]:
    """The next `count` records."""
    records: list[Record] = []
    async with asyncio.timeout(DEADLINE):
        while len(records) < count:
            records += await source.poll(limit=min(limit, count - len(records)), timeout=1.0)
    return records


def numbers(records: Collection[Record]) -> list[int]:
    """What `fill` has put into the records."""
    return [int(record.value) for record in records]


async def eventually(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Wait until `condition()` is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 (any condition can be waited for)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {DEADLINE} s") from None
