"""A stream that runs ahead of who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from stages.postprocess.speak.ahead import ahead


class Source:
    """Numbers, as fast as they are taken."""

    def __init__(self, fails_at: int = 1_000) -> None:
        self.given = 0
        self.closed = False
        self._fails_at = fails_at

    async def numbers(self) -> AsyncGenerator[int, None]:
        """Ten of them."""
        try:
            for number in range(10):
                if number == self._fails_at:
                    raise ValueError("no more")
                self.given += 1
                yield number
                await asyncio.sleep(0)
        finally:
            self.closed = True


async def settle() -> None:
    """Let everything that can happen now happen."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("most", [0, 1, 3, 100])
async def test_everything_comes_in_order(most: int) -> None:
    """However far it may run ahead, all comes, in its order."""
    async with asyncio.timeout(5), aclosing(ahead(Source().numbers(), most)) as stream:
        assert [number async for number in stream] == list(range(10))


async def test_it_runs_ahead_as_far_as_it_may() -> None:
    """So many are ready, and one more waits to be; without a bound, all are."""
    source, greedy = Source(), Source()
    async with aclosing(ahead(source.numbers(), 3)) as stream, aclosing(ahead(greedy.numbers(), 0)) as other:
        await anext(stream)
        await anext(other)
        await settle()
        assert source.given == 1 + 3 + 1
        assert greedy.given == 10


async def test_error_comes_after_what_came_before_it() -> None:
    """What was ready is not lost."""
    async with aclosing(ahead(Source(fails_at=4).numbers(), 0)) as stream:
        for number in range(4):
            assert await anext(stream) == number
            await settle()
        with pytest.raises(ValueError, match="no more"):
            await anext(stream)


@pytest.mark.parametrize("fails_at", [1_000, 3])
async def test_who_stops_reading_ends_it(fails_at: int) -> None:
    """The source is closed and its task gone, failed or not."""
    before = asyncio.all_tasks()
    source = Source(fails_at)
    async with aclosing(ahead(source.numbers(), 2)) as stream:
        await anext(stream)
        await settle()
    assert source.closed
    assert asyncio.all_tasks() == before


async def test_cancelling_the_reader_ends_it() -> None:
    """Also while it waits for the next."""
    closed = asyncio.Event()

    async def never() -> AsyncGenerator[int, None]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.set()

    async def read() -> None:
        async with aclosing(ahead(never(), 1)) as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(read())
    await settle()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert closed.is_set()
