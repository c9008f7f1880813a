"""Reading partitions of one's own choice, alone."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer

from pipeline.bus import Part
from pipeline.kafka.clients import connected, stop
from pipeline.kafka.lookup import Lookup
from pipeline.kafka.settings import KafkaSettings
from pipeline.kafka.source import Source


class KafkaReader(Source):
    """See `Reader`."""

    def __init__(self, settings: KafkaSettings, lookup: Lookup) -> None:
        super().__init__(settings, lookup)
        self._start: dict[Part, int] = {}

    async def open(self, start: Mapping[Part, int | None]) -> None:
        """Read from these offsets; None is the present end."""
        ends = await self._lookup.ends(list(start))
        self._start = {part: ends[part] if offset is None else offset for part, offset in start.items()}
        await self._connect()

    async def _connect(self) -> None:
        self._consumer = await connected(lambda: AIOKafkaConsumer(**self._options()), self._settings)
        taps = {self._lookup.tap(part): offset for part, offset in self._start.items()}
        self._consumer.assign(list(taps))
        self._own(taps)
        self._settled.set()
        for part, offset in self._start.items():
            self.seek(part, offset)

    async def _renew(self) -> None:
        self._start = {part: await self._position(part) for part in self._parts}
        self._settled.clear()
        await stop(self._consumer)
        await self._connect()

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await stop(self._consumer)
