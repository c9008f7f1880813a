"""Reads partitions of the replies: those of this gateway, and those where sessions stand that came from elsewhere."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from pipeline.bus import Bus, Part, Record
from pipeline.errors import BusUnavailable, SettingsError, TopicMissing
from pipeline.topics import REPLIES

log = logging.getLogger(__name__)

BATCH = 500
AT_ONCE = 20
"""Records after which everything else gets its turn."""
RETRY_S = 1.0


class Reading:
    """Gives each record to `take`, in order. `problem` says why this gateway's own are not read, if so."""

    def __init__(self, bus: Bus, own: Sequence[int], take: Callable[[Record], None]) -> None:
        self._bus, self._wanted, self._take = bus, own, take
        self.problem: str | None = "the replies are not read yet"
        self._own: tuple[int, ...] = ()
        self._positions: dict[int, int] = {}
        self._others: dict[int, asyncio.Task[None]] = {}
        self._adopting: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._round = 0
        self._tasks: asyncio.TaskGroup

    def next_own(self) -> int:
        """One of this gateway's own partitions, in turn."""
        self._round += 1
        return self._own[self._round % len(self._own)]

    def position(self, number: int) -> int:
        """The offset that comes next of a partition that is read."""
        return self._positions[number]

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await self._read(())

    async def adopt(self, number: int) -> None:
        """Read one more partition, from its present end on.

        Raises:
            BusUnavailable: it does not answer.
        """
        async with self._adopting[number]:
            if number not in self._positions:
                self._positions[number] = await self._bus.end(Part(REPLIES.name, number))
                self._others[number] = self._tasks.create_task(self._read((number,)))
                log.info("%s/%d is read, too", REPLIES.name, number)

    def leave(self, used: Collection[int]) -> None:
        """Read no more what is neither our own nor `used`."""
        for number in self._others.keys() - set(used):
            if not self._adopting[number].locked():
                self._others.pop(number).cancel()
                del self._positions[number]
                log.info("%s/%d is not read any more", REPLIES.name, number)

    async def _read(self, numbers: tuple[int, ...]) -> None:
        """Read these partitions; none means our own."""
        while True:
            try:
                await self._read_on(numbers or await self._ours())
            except (BusUnavailable, TopicMissing) as error:
                if not numbers:
                    self.problem = str(error)
                log.warning("the replies cannot be read: %s; trying again", error)
                await asyncio.sleep(RETRY_S)

    async def _read_on(self, numbers: tuple[int, ...]) -> None:
        start: dict[Part, int | None] = {Part(REPLIES.name, number): self._positions[number] for number in numbers}
        async with self._bus.reader(start) as reader:
            if numbers == self._own:
                self.problem = None
            while True:
                for count, record in enumerate(await reader.poll(limit=BATCH, timeout=1.0), start=1):
                    self._positions[record.part.number] = record.offset + 1
                    self._take(record)
                    if count % AT_ONCE == 0:
                        await asyncio.sleep(0)

    async def _ours(self) -> tuple[int, ...]:
        if self._own:
            return self._own
        count = await self._bus.partitions(REPLIES.name)
        own = tuple(sorted(self._wanted)) or (random.randrange(count),)
        if wrong := [number for number in own if not 0 <= number < count]:
            raise SettingsError("gateway.replies", f"there is no partition {wrong[0]}; the topic has {count}")
        ends = {number: await self._bus.end(Part(REPLIES.name, number)) for number in own}
        self._positions |= ends
        self._own = own
        return own
