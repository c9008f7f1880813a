"""Who is let in first."""

from __future__ import annotations

import asyncio

from stages.postprocess.speak.gate import Gate


async def settle() -> None:
    """Let everything that can happen now happen."""
    for _ in range(20):
        await asyncio.sleep(0)


class Guests:
    """Come to a gate and stay until they are told to leave."""

    def __init__(self, most: int) -> None:
        self.gate = Gate(most)
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    def come(self, name: str, due: float) -> None:
        """Another one wants to come in, and needs it at `due`."""
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._visit(name, due))

    async def leave(self, name: str) -> None:
        """One goes."""
        self._leave[name].set()
        await settle()

    async def _visit(self, name: str, due: float) -> None:
        async with self.gate.place(due):
            self.inside.append(name)
            await self._leave[name].wait()


async def test_soonest_comes_first() -> None:
    """So many come in at once; then, as one leaves, who is due first, and of those the one who came first."""
    guests = Guests(2)
    for name, due in (("a", 9.0), ("b", 8.0), ("c", 7.0), ("d", 5.0), ("e", 5.0)):
        guests.come(name, due)
        await settle()
    assert guests.inside == ["a", "b"]

    for name in ("a", "b", "d", "e", "c"):
        await guests.leave(name)
    assert guests.inside == ["a", "b", "d", "e", "c"]


async def test_places_are_not_lost() -> None:
    """Who gives up waiting, also in the moment in which there is room, and who fails inside, leave their place."""
    guests = Guests(1)
    guests.come("a", 1.0)
    await settle()
    guests.come("gone", 1.0)
    guests.come("late", 2.0)
    guests.come("b", 3.0)
    await settle()
    guests.tasks["gone"].cancel()
    await settle()
    guests._leave["a"].set()
    while not guests.tasks["a"].done():  # noqa: ASYNC110 (and not a moment longer)
        await asyncio.sleep(0)
    guests.tasks["late"].cancel()
    await settle()
    assert guests.inside == ["a", "b"]

    guests.tasks["b"].cancel()
    await settle()
    guests.come("c", 1.0)
    await settle()
    assert guests.inside == ["a", "b", "c"]
    await guests.leave("c")
