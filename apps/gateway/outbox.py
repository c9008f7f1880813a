"""The way into the log: one queue, one order, a deadline for each record, and word of what did not arrive."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable

from apps.gateway.outgoing import Outgoing
from pipeline.bus import Bus
from pipeline.errors import BusUnavailable, PenstockError

RETRY_S = 0.25
MOST_WAITING = 5000
"""Records beyond which those who make them wait."""

UNHEARD = "no acknowledgement in time"

Undelivered = Callable[[Outgoing, Exception], None]


class Outbox:
    """Publishes records one after the other, without waiting for one to be acknowledged before the next."""

    def __init__(self, bus: Bus, undelivered: Undelivered, *, timeout_s: float) -> None:
        self._bus, self._undelivered, self._timeout = bus, undelivered, timeout_s
        self._waiting: deque[tuple[Outgoing, float]] = deque()
        self._flying: dict[Future[int], tuple[Outgoing, float]] = {}
        self._overdue: set[Future[int]] = set()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    def post(self, records: Iterable[Outgoing]) -> None:
        """Publish `records`, in this order."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        self._waiting.extend((record, deadline) for record in records)
        if self._waiting:
            self._wake.set()
        if len(self._waiting) >= MOST_WAITING:
            self._room.clear()

    def withdraw(self, lost: Outgoing) -> None:
        """Leave out what waits of the same turn in the same topic as `lost`: there must be no hole in it."""
        same = lost.topic, lost.key, lost.message.turn
        self._waiting = deque(one for one in self._waiting if (one[0].topic, one[0].key, one[0].message.turn) != same)

    async def room(self) -> None:
        """Wait while too much is waiting."""
        await self._room.wait()

    async def run(self) -> None:
        """Publish what is posted, for ever."""
        while True:
            while self._waiting:
                await self._publish(*self._waiting.popleft())
            self._room.set()
            self._wake.clear()
            await self._wake.wait()

    async def _publish(self, record: Outgoing, deadline: float) -> None:
        try:
            value = record.topic.encode(record.message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:  # msgpack has no way to write it
            self._undelivered(record, error)
            return
        try:
            async with asyncio.timeout_at(deadline):
                delivery = await self._handed_over(record, value, deadline)
        except (PenstockError, TimeoutError) as error:
            self._undelivered(record, error if str(error) else TimeoutError(UNHEARD))
            return
        self._flying[delivery] = record, deadline
        delivery.add_done_callback(self._landed)

    async def _handed_over(self, record: Outgoing, value: bytes, deadline: float) -> Future[int]:
        """Hand `record` to the bus; anew until `deadline` where that takes nothing, as while its producer is replaced.

        Nothing is said twice: what could not be handed over is not on its way.
        """
        topic, _, key, partition, headers = record
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._bus.publish(topic.name, value, key=key, headers=headers, partition=partition)
            except BusUnavailable:
                if loop.time() + RETRY_S > deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    def _landed(self, delivery: Future[int]) -> None:
        record, _ = self._flying.pop(delivery, (None, 0.0))
        error = None if delivery.cancelled() else delivery.exception()
        if record is not None and isinstance(error, Exception):
            self._undelivered(record, error)

    def tick(self, now: float) -> None:
        """Give up what is on its way for too long; should it arrive in the end, nobody listens any more.

        What was not overdue before gets time until the next tick: if this process has slept, the word of it may be here
        and not be read yet.
        """
        overdue = {delivery for delivery, (_, deadline) in self._flying.items() if now > deadline}
        for delivery in overdue & self._overdue:
            record, _ = self._flying.pop(delivery)
            self._undelivered(record, TimeoutError(UNHEARD))
        self._overdue = overdue
