"""Slots: never too many, in order, and none lost to a cancel."""

from __future__ import annotations

import asyncio

from pipeline.slots import Slots


async def test_no_more_than_the_slots_are_taken_and_all_get_their_turn() -> None:
    """Fifty wait for three slots; three run at any time, in the order in which they came."""
    slots, running, most, order = Slots(3), 0, 0, []

    async def work(number: int) -> None:
        nonlocal running, most
        async with slots:
            order.append(number)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(work(number))

    assert most == 3
    assert order == list(range(50))


async def test_who_is_cancelled_while_waiting_takes_no_slot_away() -> None:
    """Whether it has been given its turn already or not, the slot goes to the next."""
    slots = Slots(1)
    got: list[str] = []

    async def work(name: str) -> None:
        async with slots:
            got.append(name)

    async with asyncio.timeout(5):
        async with slots:
            tasks = [asyncio.create_task(work(name)) for name in "abc"]
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.sleep(0)
        tasks[1].cancel()  # its turn has come, and it has not run yet
        await asyncio.wait(tasks)
        async with slots:
            got.append("free again")

    assert got == ["c", "free again"]
