"""Slots: never too many, in order, and no more tasks than the work needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pipeline.slots import Slots

Work = Callable[[Any, asyncio.Task[Any]], Awaitable[bool]]


async def done_with(things: Any, count: int | None, work: Work) -> None:
    """Ask for all `things` at once, and wait until all is done."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        slots = Slots(count, work, tasks)
        for thing in things:
            slots.ask(thing)


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (None, 50)])
async def test_no_more_than_the_slots_are_taken_and_all_get_their_turn(count: int | None, expected: int) -> None:
    """Fifty want three slots, or as many as they like; they get them in the order in which they came."""
    running, most, order = 0, 0, []

    async def work(number: int, _: object) -> bool:
        nonlocal running, most
        order.append(number)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return False

    await done_with(range(50), count, work)

    assert most == expected
    assert order == list(range(50))


async def test_what_is_not_done_yet_waits_behind_the_others() -> None:
    """Who has more to do does not keep a slot to himself."""
    order = []
    left = {"a": 3, "b": 2, "c": 1}

    async def work(name: str, _: object) -> bool:
        order.append(name)
        left[name] -= 1
        return left[name] > 0

    await done_with("abc", 1, work)

    assert "".join(order) == "abcaba"


async def test_quick_work_takes_one_task() -> None:
    """What never waits is done one after the other in a single task."""
    seen = set()

    async def work(_: int, task: asyncio.Task[Any]) -> bool:
        assert task is asyncio.current_task()
        seen.add(task)
        return False

    await done_with(range(50), 10, work)

    assert len(seen) == 1


async def test_what_is_asked_for_later_is_not_held_up_by_who_waits() -> None:
    """A slot that is free is given at once, also while all tasks there are wait for something."""
    gate, got = asyncio.Event(), []

    async def work(name: str, _: object) -> bool:
        if name == "slow":
            await gate.wait()
        got.append(name)
        return False

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        slots = Slots(2, work, tasks)
        slots.ask("slow")
        await asyncio.sleep(0.01)
        slots.ask("quick")
        await asyncio.sleep(0.01)
        assert got == ["quick"]
        gate.set()
