"""How much may be worked on at once. Knows nothing of what the work is."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A number of slots, given out in the order in which they were asked for.

    Like `asyncio.Semaphore`, which with hundreds of waiters spends more than the work: each release looks through all
    that were woken before.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        """Take a slot, waiting for one if need be."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self._give_back()

    def _give_back(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
