"""Between the sessions and the bus: reads this gateway's partitions of `replies`, and hands to the log what is said."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable

from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outbox import Outbox
from apps.gateway.outgoing import Outgoing
from apps.gateway.seats import Seats
from apps.gateway.session import Session
from apps.gateway.settings import GatewaySettings
from apps.gateway.turns import Position
from pipeline.bus import Bus, Part, Record
from pipeline.errors import BusUnavailable, SettingsError, TopicMissing, UndecodableMessage
from pipeline.topics import REPLIES

log = logging.getLogger(__name__)

BATCH = 500
AT_ONCE = 20
"""Records after which everything else gets its turn."""
TICK_S = 0.25
RETRY_S = 1.0


class Hub:
    """Owns the reading, the publishing and the clock of one gateway. `problem` says why it does not read, if so."""

    def __init__(self, bus: Bus, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self._bus, self._settings, self._metrics = bus, settings, metrics
        self.seats = Seats(settings, metrics)
        self.outbox = Outbox(bus, self._undelivered, timeout_s=settings.publish_timeout_s)
        self.problem: str | None = "the replies are not read yet"
        self._positions: dict[Part, int] = {}
        self._round = 0

    def partition(self) -> int:
        """The partition for the next session: one of ours, in turn."""
        self._round += 1
        return sorted(self._positions)[self._round % len(self._positions)].number

    async def pump(self, session: Session) -> None:
        """Hand to the log what `session` has to say; waits while the log is behind."""
        self.outbox.post(session.outgoing())
        await self.outbox.room()

    def end_turns(self) -> None:
        """End what is under way: the gateway stops."""
        for seat in self.seats:
            seat.session.end_turns()
            self.outbox.post(seat.session.outgoing())

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            tasks.create_task(self.outbox.run())
            tasks.create_task(self._tick())

    async def _read(self) -> None:
        while True:
            try:
                await self._read_on()
            except (BusUnavailable, TopicMissing) as error:
                self.problem = str(error)
                log.warning("the replies cannot be read: %s; trying again", error)
                await asyncio.sleep(RETRY_S)

    async def _read_on(self) -> None:
        if not self._positions:
            self._positions = {part: await self._bus.end(part) for part in await self._parts()}
        async with self._bus.reader(dict(self._positions)) as reader:
            self.problem = None
            while True:
                for number, record in enumerate(await reader.poll(limit=BATCH, timeout=1.0), start=1):
                    self._positions[record.part] = record.offset + 1
                    self._take(record)
                    if number % AT_ONCE == 0:
                        await asyncio.sleep(0)

    async def _parts(self) -> Iterable[Part]:
        count = await self._bus.partitions(REPLIES.name)
        numbers = self._settings.replies or (random.randrange(count),)
        if wrong := [number for number in numbers if not 0 <= number < count]:
            raise SettingsError("gateway.replies", f"there is no partition {wrong[0]}; the topic has {count}")
        return [Part(REPLIES.name, number) for number in numbers]

    def _take(self, record: Record) -> None:
        try:
            message = REPLIES.decode(record.value)
        except UndecodableMessage as error:
            self._metrics.skipped.labels("undecodable").inc()
            log.warning("%s at %d: %s", record.part, record.offset, error)
            return
        if session := self.seats.read(Position(record.part.number, record.offset), message):
            self.outbox.post(session.outgoing())

    def _undelivered(self, sent: Outgoing, why: Exception) -> None:
        if session := self.seats.undelivered(sent, why):
            self.outbox.post(session.outgoing())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.outbox.tick(time.monotonic())
            for session in self.seats.tick(time.monotonic()):
                self.outbox.post(session.outgoing())
