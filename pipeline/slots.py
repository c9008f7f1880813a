"""How much may be worked on at once. Knows nothing of what the work is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """Has `work` done on things, on at most `count` at once, in the order in which that was asked for.

    `work` gets the thing and the task it runs in, and tells whether there is more to do on the same thing, which then
    waits behind the others. A task goes from one thing to the next, for a task for each would cost more than quick
    work does; only when the first one has to wait for something do the others that are waiting get tasks of their own,
    which belong to `tasks`. A count of None is no bound. A task that is cancelled for what it works on shall not end
    with that: `work` keeps such a cancel to itself.
    """

    def __init__(
        self, count: int | None, work: Callable[[T, asyncio.Task[Any]], Awaitable[bool]], tasks: asyncio.TaskGroup
    ) -> None:
        self._count = count
        self._work = work
        self._tasks = tasks
        self._waiting: deque[T] = deque()
        self._taken = 0
        self._trying = False

    def ask(self, thing: T) -> None:
        """Have `work` done on `thing` as soon as a slot is free."""
        self._waiting.append(thing)
        self._try()

    def _free(self) -> int:
        wanted = len(self._waiting)
        return wanted if self._count is None else min(wanted, self._count - self._taken)

    def _try(self) -> None:
        """See how far one task comes at once."""
        if not self._trying and self._free():
            self._trying = True
            self._begin()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """That task has done all, or waits for something: then others must do the rest."""
        self._trying = False
        for _ in range(self._free()):
            self._begin()

    def _begin(self) -> None:
        self._taken += 1
        self._tasks.create_task(self._run())

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._waiting:
                thing = self._waiting.popleft()
                if await self._work(thing, task):
                    self._waiting.append(thing)
        finally:
            self._taken -= 1
