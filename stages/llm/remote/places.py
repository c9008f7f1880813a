"""So many at once, the rest in line: the admission of an engine that does not know what an answer will cost."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pipeline.errors import Overloaded

SOONEST_S = 0.5
"""Nobody is told to come back sooner."""
MEMORY = 0.1
"""How much the latest answer counts in how long one takes."""


class Places:
    """`most` at once; `queue` more may wait, at most `max_wait_s`: the higher priority first, else as they came."""

    def __init__(self, most: int, *, queue: int, max_wait_s: float) -> None:
        self._most, self._queue, self._max_wait_s = most, queue, max_wait_s
        self._line: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._each_s = 1.0
        self.taken = 0
        self.refused = 0

    @property
    def waiting(self) -> int:
        """How many are in line."""
        return len(self._line)

    @asynccontextmanager
    async def place(self, *, priority: int = 0, begun: bool = False) -> AsyncGenerator[None, None]:
        """Hold a place. Who has `begun` comes first, and is not refused.

        Raises:
            Overloaded: the line is too long, or was too slow.
        """
        await self._take(math.inf if begun else priority)
        began = time.monotonic()
        try:
            yield
        finally:
            self._each_s += MEMORY * (time.monotonic() - began - self._each_s)
            self._give()

    async def _take(self, priority: float) -> None:
        if self.taken < self._most:
            self.taken += 1
            return
        refusable = math.isfinite(priority)
        if refusable and len(self._line) >= self._queue:
            raise self._overloaded("too many turns wait for the model")
        turn = asyncio.get_running_loop().create_future()
        entry = (-priority, next(self._numbers), turn)
        heapq.heappush(self._line, entry)
        try:
            async with asyncio.timeout(self._max_wait_s if refusable else None):
                await turn
        except TimeoutError:
            self._leave(entry)
            raise self._overloaded("the model did not begin with it in time") from None
        except asyncio.CancelledError:
            self._leave(entry)
            raise

    def _leave(self, entry: tuple[float, int, asyncio.Future[None]]) -> None:
        """Go out of the line; who was given a place in the same moment gives it on."""
        if entry in self._line:
            self._line.remove(entry)
            heapq.heapify(self._line)
        elif not entry[2].cancelled():
            self._give()

    def _give(self) -> None:
        self.taken -= 1
        while self._line and self.taken < self._most:
            _, _, turn = heapq.heappop(self._line)
            if not turn.cancelled():
                self.taken += 1
                turn.set_result(None)

    def _overloaded(self, what: str) -> Overloaded:
        self.refused += 1
        return Overloaded(what, retry_after=max(SOONEST_S, self._each_s * (1 + len(self._line)) / self._most))
