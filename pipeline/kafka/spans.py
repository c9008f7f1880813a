"""Reading stretches of partitions, several at once, through one consumer that is kept connected."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import Collection, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.errors import BusUnavailable
from pipeline.kafka.clients import connected, connection, in_time, stop
from pipeline.kafka.settings import KafkaSettings

FETCH_WAIT_MS = 100
FETCH_BYTES = 512 << 10
POLL_MS = 500
LOCATE_S = 5.0


class _Span:
    """A stretch that is wanted: from `position`, the next that is missing, up to `end`; `found` is all of it."""

    def __init__(self, tap: TopicPartition, start: int, end: int) -> None:
        self.tap, self.position, self._end = tap, start, end
        self._records: list[Any] = []
        self.found: Future[list[Any]] = asyncio.get_running_loop().create_future()

    def take(self, came: Sequence[Any]) -> None:
        """Some records have come."""
        self._records += [record for record in came if self.position <= record.offset < self._end]
        self.position = max(self.position, came[-1].offset + 1)
        if self.position >= self._end and not self.found.done():
            self.found.set_result(self._records)


class Spans:
    """Reads what is asked for.

    A takeover asks for a stretch of each partition, and a consumer for each would cost more time than the reading.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._wanted: list[_Span] = []
        self._connecting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def locate(self, topics: Collection[str]) -> None:
        """Connect now and learn where `topics` are (by Kafka's names), so that the first who asks need not wait for it.

        Raises:
            BusUnavailable: Kafka does not answer.
        """
        client = (await self._connected())._client  # noqa: SLF001 (nothing public learns it before it is asked)
        for topic in topics:
            await in_time(client._wait_on_metadata(topic), self._settings, LOCATE_S)  # noqa: SLF001

    async def _connected(self) -> AIOKafkaConsumer:
        async with self._connecting:
            if self._consumer is None:
                self._consumer = await connected(self._build, self._settings)
            return self._consumer

    async def close(self, why: str = "the bus is closed") -> None:
        """Disconnect; who still waits is told. Who asks later gets another consumer."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await self._drop(why)

    async def read(self, tap: TopicPartition, start: int, end: int, seconds: float) -> list[Any]:
        """The records of `tap` from offset `start` up to the one before `end`, which must have been written.

        Raises:
            BusUnavailable: they did not come within `seconds`.
        """
        if start >= end:
            return []
        span = _Span(tap, start, end)
        try:
            async with asyncio.timeout(seconds):
                await self._connected()
                self._wanted.append(span)
                if self._reading is None or self._reading.done():
                    self._reading = asyncio.create_task(self._read())
                return await span.found
        except TimeoutError:
            why = f"{tap.topic}-{tap.partition} could not be read up to offset {end} within {seconds:g} s"
            await self.close(why)  # a consumer may hang after a broker's restart
            raise BusUnavailable(self._settings.bootstrap, why) from None
        finally:
            if span in self._wanted:
                self._wanted.remove(span)

    def _build(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **connection(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )

    async def _read(self) -> None:
        """Read until nothing is wanted any more; two stretches of one partition come one after the other."""
        assigned: dict[TopicPartition, _Span] = {}
        try:
            while self._wanted:
                turn = {span.tap: span for span in reversed(self._wanted)}
                if turn != assigned:
                    self._assign(turn)
                    assigned = turn
                await self._fetch(assigned)
            self._assign({})
        except KafkaError as error:
            await self._drop(str(error))

    def _assign(self, turn: dict[TopicPartition, _Span]) -> None:
        """Fetch these from where they stand; with none of them, fetch nothing."""
        assert self._consumer is not None
        if not turn:
            self._consumer.pause(*self._consumer.assignment())  # giving them back would forget their topics' leaders
            return
        self._consumer.assign(list(turn))
        for tap, span in turn.items():
            self._consumer.seek(tap, span.position)

    async def _fetch(self, assigned: dict[TopicPartition, _Span]) -> None:
        assert self._consumer is not None
        for tap, came in (await self._consumer.getmany(timeout_ms=POLL_MS)).items():
            if came:
                assigned[tap].take(came)
        self._wanted = [span for span in self._wanted if not span.found.done()]

    async def _drop(self, why: str) -> None:
        """Give the consumer up, and tell all who wait; the next who asks gets another."""
        wanted, self._wanted = self._wanted, []
        for span in wanted:
            if not span.found.done():
                span.found.set_exception(BusUnavailable(self._settings.bootstrap, why))
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError):
                await stop(consumer)
