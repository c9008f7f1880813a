"""What is the memory bus's own: that it is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from pipeline.bus import Part
from pipeline.errors import BusUnavailable
from pipeline.memory import MemoryBus
from tests.pipeline.fakes import published

PART = Part("turns", 0)


class Deaf:
    """A listener that a test does not look at."""

    async def revoked(self, parts: Collection[Part]) -> None:
        """Nothing to do."""

    async def assigned(self, parts: Collection[Part]) -> None:
        """Nothing to do."""


async def fill(bus: MemoryBus, count: int) -> None:
    """Publish `count` small records."""
    for number in range(count):
        await published(bus, "turns", b"%d" % number, key="k", headers={})


async def test_without_a_group_the_oldest_records_make_room() -> None:
    """A topic that nobody has to finish keeps its newest records."""
    async with MemoryBus(partitions=1, max_records=10) as bus:
        await fill(bus, 25)
        assert await bus.end(PART) == 25
        async with bus.reader({PART: 0}) as reader:
            values = [record.value for record in await reader.poll(limit=100, timeout=1.0)]

    assert values == [b"%d" % number for number in range(15, 25)]


async def test_a_publisher_waits_while_a_group_has_not_finished() -> None:
    """A full partition holds its publisher until the group commits; nothing unfinished is dropped."""
    async with MemoryBus(partitions=1, max_records=10) as bus, bus.member("g", ["turns"], Deaf()) as member:
        await fill(bus, 10)
        waiting = asyncio.create_task(fill(bus, 1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await member.commit({PART: 3})
        await asyncio.wait_for(waiting, 5)
        assert await bus.end(PART) == 11
        records = await member.poll(limit=100, timeout=1.0)

    assert len(records) == 10
    assert records[0].offset >= 1


async def test_a_publisher_does_not_wait_for_ever() -> None:
    """A partition that stays full is reported as such."""
    async with MemoryBus(partitions=1, max_records=2, patience=0.05) as bus, bus.member("g", ["turns"], Deaf()):
        await fill(bus, 2)
        with pytest.raises(BusUnavailable, match="turns/0 is full"):
            await fill(bus, 1)


async def test_what_a_live_reader_has_not_read_is_kept() -> None:
    """A publisher that is faster than a reader waits for it; the reader misses nothing."""
    async with MemoryBus(partitions=1, max_records=10) as bus, bus.reader({PART: 0}) as reader:
        filling = asyncio.create_task(fill(bus, 50))
        values: list[bytes] = []
        async with asyncio.timeout(5):
            while len(values) < 50:
                await asyncio.sleep(0.001)
                values += [record.value for record in await reader.poll(limit=3, timeout=1.0)]
        await filling

    assert values == [b"%d" % number for number in range(50)]


async def test_the_bound_is_one_of_bytes_too() -> None:
    """A few large records fill a partition as well as many small ones."""
    async with MemoryBus(partitions=1, max_bytes=10_000) as bus:
        for _ in range(10):
            await published(bus, "turns", bytes(4000), key="k", headers={})
        async with bus.reader({PART: None}) as reader:
            assert not await reader.poll(limit=10, timeout=0.01)
        async with bus.reader({PART: 0}) as reader:
            assert len(await reader.poll(limit=100, timeout=1.0)) <= 3


async def test_of_what_is_finished_only_the_newest_is_kept() -> None:
    """Memory does not grow with what has been: long before a partition is full, finished records go."""
    async with MemoryBus(partitions=1, keep=10) as bus, bus.member("g", ["turns"], Deaf()) as member:
        await fill(bus, 30)
        await member.commit({PART: 25})
        await fill(bus, 1)
        async with bus.reader({PART: 0}) as reader:
            offsets = [record.offset for record in await reader.poll(limit=100, timeout=1.0)]

    assert offsets == list(range(21, 31))
