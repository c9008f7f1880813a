"""So many at once, and the rest in line."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from pipeline.errors import Overloaded
from stages.llm.remote.places import Places

DEADLINE_S = 10


async def settle() -> None:
    """Let everybody come as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Tasks that want places, and the order in which they got them."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.got: list[str] = []
        self.leave = asyncio.Event()

    def come(self, name: str, **how: int) -> asyncio.Task[None]:
        """One more, who stays until `leave`."""

        async def stay() -> None:
            async with self.places.place(**how):  # type: ignore[arg-type]
                self.got.append(name)
                await self.leave.wait()

        return asyncio.create_task(stay())


async def test_in_the_order_in_which_they_came() -> None:
    """At most so many at once."""
    crowd = Crowd(Places(2, queue=9, max_wait_s=DEADLINE_S))
    tasks = [crowd.come(str(number)) for number in range(5)]
    await settle()
    assert (crowd.got, crowd.places.taken, crowd.places.waiting) == (["0", "1"], 2, 3)
    crowd.leave.set()
    await asyncio.gather(*tasks)

    assert crowd.got == ["0", "1", "2", "3", "4"]
    assert (crowd.places.taken, crowd.places.waiting) == (0, 0)


async def test_the_higher_priority_first_and_whoever_has_begun_before_all() -> None:
    """Who has begun is not refused either, however long the line."""
    crowd = Crowd(Places(1, queue=3, max_wait_s=DEADLINE_S))
    tasks = [crowd.come("first")]
    await settle()
    tasks += [crowd.come("low", priority=-1), crowd.come("plain"), crowd.come("high", priority=2)]
    await settle()
    tasks += [crowd.come("begun", begun=True), refused := crowd.come("late", priority=9)]
    await settle()
    crowd.leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert crowd.got == ["first", "begun", "high", "plain", "low"]
    assert isinstance(refused.exception(), Overloaded)
    assert crowd.places.refused == 1


async def test_who_waits_for_too_long_is_told_when_to_come_back() -> None:
    """And leaves the line; who has begun waits."""
    crowd = Crowd(Places(1, queue=9, max_wait_s=0.05))
    first = crowd.come("first")
    await settle()
    begun, late = crowd.come("begun", begun=True), crowd.come("late")
    with pytest.raises(Overloaded) as refusal:
        await late

    assert refusal.value.retry_after > 0
    assert crowd.places.waiting == 1
    crowd.leave.set()
    await asyncio.gather(first, begun)


@pytest.mark.parametrize("settled", [True, False], ids=["in line", "at the very moment of getting a place"])
async def test_who_is_cancelled_leaves_no_hole(settled: bool) -> None:
    """Wherever it was, the next one gets the place."""
    crowd = Crowd(Places(1, queue=9, max_wait_s=DEADLINE_S))
    tasks = [crowd.come(name) for name in ("first", "gone", "next")]
    await settle()
    if settled:
        tasks[1].cancel()
    crowd.leave.set()
    if not settled:
        while crowd.places.waiting > 1:  # noqa: ASYNC110 - step by step, to catch the moment
            await asyncio.sleep(0)
        tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert crowd.got == ["first", "next"]
    assert (crowd.places.taken, crowd.places.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_places_are_never_lost(seed: int) -> None:
    """Whoever comes, waits, is cancelled or gives up, at any moment: in the end all places are free."""
    chance = random.Random(seed)
    places = Places(3, queue=4, max_wait_s=0.005)
    most = 0

    async def stay(nap: Callable[[], float]) -> None:
        nonlocal most
        async with places.place(priority=chance.randrange(3), begun=chance.random() < 0.2):
            most = max(most, places.taken)
            await asyncio.sleep(nap())

    tasks = []
    for _ in range(60):
        tasks.append(asyncio.create_task(stay(lambda: chance.random() * 0.004)))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        await asyncio.sleep(chance.random() * 0.001)
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait(tasks)

    assert most <= 3
    assert (places.taken, places.waiting) == (0, 0)
