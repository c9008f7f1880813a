"""Reading sessions' pasts back: many at once, in one reading, and never a part of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from apps.gateway import history
from apps.gateway.history import History, Past
from pipeline.bus import Part
from pipeline.errors import BusUnavailable
from pipeline.memory import MemoryBus
from pipeline.topics import REPLIES
from tests.apps.gateway.harness import DEADLINE_S

PART = Part(REPLIES.name, 0)


class Watched(MemoryBus):
    """A bus that counts its readers; the first `failing` of them cannot read."""

    readers = 0
    failing = 0

    @asynccontextmanager
    async def reader(self, start: Mapping[Part, int | None]) -> AsyncGenerator[Any, None]:
        """See `Bus.reader`."""
        self.readers += 1
        if self.readers <= self.failing:
            raise BusUnavailable("memory", "test")
        async with super().reader(start) as reader:
            yield reader


async def filled(**options: Any) -> Watched:
    """Return a bus with ten records of each of a hundred sessions, in turn."""
    bus = Watched(**options)
    for number in range(1000):
        value, key = b"%d" % number, f"s{number % 100}/r"
        delivery = await bus.publish(PART.topic, value, key=key, headers={}, partition=PART.number)
        assert await delivery == number
    return bus


async def test_all_who_ask_at_once_are_served_by_one_reading() -> None:
    """Of a hundred sessions that come back together the first is read alone, and all others with one more reading."""
    bus = await filled()
    found = History(bus)

    pasts = await asyncio.gather(*(found.read(PART, f"s{n}", 500) for n in range(100)))

    assert bus.readers <= 2
    for number, past in enumerate(pasts):
        assert [int(record.value) % 100 for record in past.records] == [number] * len(past.records)
        assert {record.offset for record in past.records} >= {500 + number, 600 + number}
        assert past.first == 500


async def test_a_reading_that_fails_is_anothers_to_do() -> None:
    """Whoever's reading fails is told so; those who wait behind it read for themselves."""
    bus = await filled()
    bus.failing = 1
    found = History(bus)

    first, *others = await asyncio.gather(*(found.read(PART, f"s{n}", 0) for n in range(5)), return_exceptions=True)

    assert isinstance(first, BusUnavailable)
    assert all(isinstance(past, Past) and len(past.records) == 10 for past in others)


async def test_who_leaves_does_not_hinder_the_others() -> None:
    """A client that goes while its past is read leaves the reading to the next one."""
    bus = await filled()
    found = History(bus)
    tasks = [asyncio.create_task(found.read(PART, f"s{n}", 0)) for n in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()

    async with asyncio.timeout(DEADLINE_S):
        pasts = await asyncio.gather(*tasks[1:])

    assert [len(past.records) for past in pasts] == [10, 10]


async def test_what_is_gone_is_told() -> None:
    """Where the log begins later than what is asked for, the past says where."""
    bus = await filled(keep=100)

    past = await History(bus).read(PART, "s1", 0)

    assert past.first >= 800


async def test_too_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A past that has no room is not whole."""
    monkeypatch.setattr(history, "MOST_BYTES", 20)
    bus = await filled()

    past = await History(bus).read(PART, "s1", 0)

    assert not past.whole
    assert len(past.records) < 10


async def test_nothing_to_read() -> None:
    """What would begin at the log's end is empty."""
    bus = await filled()

    assert (await History(bus).read(PART, "s1", 1000)).records == []
