"""Publishing: an idempotent producer, kept in order and within bounds, and replaced when it has died."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Collection

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, UnknownTopicOrPartitionError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from pipeline.bus import Headers, Part
from pipeline.errors import BusUnavailable, MessageTooLarge, TopicMissing
from pipeline.kafka.clients import connected, connection, in_time, stop
from pipeline.kafka.outbox import Outbox
from pipeline.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)

BATCH_BYTES = 128 << 10
"""Of a partition in one request. A request is dear and a record in it cheap, so it is more than aiokafka's 16 KiB."""

LOCATE_S = 5.0
FLUSH_S = 10.0
"""How long a producer that is to end may take to deliver what it has."""


class Publisher:
    """Hands records to a producer.

    A producer of aiokafka that has failed once is dead for good: the failed batch used up sequence numbers, so the
    broker refuses all that follow in that partition. It is wound down and another takes its place.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._outbox: Outbox | None = None
        self._taps: dict[Part, TopicPartition] = {}
        self._starting = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._taken = 0
        self._freed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Connect now, so that the first record need not wait for it."""
        await self._ready()

    async def send(self, part: Part, key: bytes, value: bytes, headers: Headers) -> Future[int]:
        """Hand a record over; see `Bus.publish`."""
        raw = [(name, text.encode()) for name, text in headers.items()]
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, raw)
        if size > self._settings.max_request_bytes:
            raise MessageTooLarge(part.topic, size=size, limit=self._settings.max_request_bytes)
        outbox = self._outbox
        if self._taken >= self._settings.publish_window:
            await self._room()
        self._refuse_after(outbox)
        tap = self._taps.get(part)
        if outbox is None or tap is None:
            outbox = await self._ready()
            tap = await self._known(outbox, part)
            self._refuse_after(outbox)
        self._taken += 1
        return outbox.put(tap, key, value, raw)

    def _refuse_after(self, outbox: Outbox | None) -> None:
        """Who comes after a record that failed must know of that before anything new is written."""
        if outbox is not self._outbox or (self._ending is not None and not self._ending.done()):
            raise BusUnavailable(self._settings.bootstrap, "the producer has failed, another takes its place")

    async def _known(self, outbox: Outbox, part: Part) -> TopicPartition:
        """What aiokafka calls `part`, once the producer knows the topic."""
        topic = self._settings.topic_prefix + part.topic
        try:
            await outbox.producer.partitions_for(topic)
        except UnknownTopicOrPartitionError as error:
            raise TopicMissing(part.topic) from error
        except KafkaError as error:
            raise BusUnavailable(self._settings.bootstrap, str(error)) from error
        tap = self._taps[part] = TopicPartition(topic, part.number)
        return tap

    async def locate(self, topics: Collection[str]) -> None:
        """Learn where the partitions of `topics` are: else the first record of each waits for that.

        Raises:
            BusUnavailable: Kafka does not answer.
        """
        outbox = await self._ready()
        for topic in topics:
            asking = outbox.producer.partitions_for(self._settings.topic_prefix + topic)
            await in_time(asking, self._settings, LOCATE_S)

    async def _room(self) -> None:
        """Wait until fewer are on their way than may be (a semaphore would cost as much as the rest of `send`)."""
        patience = self._settings.request_timeout_ms / 1000
        try:
            async with asyncio.timeout(patience):
                while self._taken >= self._settings.publish_window:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            why = f"{self._taken} records are on their way, and none was acknowledged for {patience:g} s"
            raise BusUnavailable(self._settings.bootstrap, why) from None

    def _release(self, count: int) -> None:
        self._taken -= count
        self._freed.set()

    async def _ready(self) -> Outbox:
        """Where to put records; with a new producer if there is none. One caller starts it, and the others wait."""
        async with self._starting:
            if self._ending is not None:
                await asyncio.wait([self._ending])  # what was handed over before must not be overtaken
                self._ending = None
            if self._outbox is None:
                producer = await connected(self._build, self._settings)
                self._taps.clear()
                self._outbox = Outbox(producer, self._settings, settled=self._release, failed=self._retire)
            return self._outbox

    def _build(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **connection(self._settings),
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_batch_size=min(BATCH_BYTES, self._settings.max_request_bytes),
            max_request_size=self._settings.max_request_bytes,
        )

    def _retire(self, outbox: Outbox, error: BaseException, patience_s: float = FLUSH_S) -> None:
        if self._outbox is outbox:
            log.error("the producer has failed, another takes its place: %s", error)
            self._outbox = None
            self._ending = asyncio.create_task(self._wind_down(outbox, patience_s, str(error)))

    def expire(self) -> None:
        """Give up what was handed over too long ago, and its producer, so that none of it is written later."""
        patience = self._settings.delivery_timeout_ms / 1000
        outbox = self._outbox
        if outbox is None or outbox.oldest is None or self._loop.time() - outbox.oldest < patience:
            return
        self._retire(outbox, KafkaTimeoutError(f"no acknowledgement within {patience:g} s"), patience_s=0.0)

    async def _wind_down(self, outbox: Outbox, patience_s: float, why: str) -> None:
        """Let what can still be delivered be delivered, and give up the rest."""
        try:
            async with asyncio.timeout(patience_s):
                await outbox.flush()
        except TimeoutError:
            log.error("%d records were not acknowledged, and are given up: %s", len(outbox), why)
            await outbox.give_up(KafkaError(why))
        await stop(outbox.producer)

    async def close(self) -> None:
        """Deliver what is on its way, within a deadline, and disconnect."""
        async with self._starting:
            if self._outbox is not None:
                outbox, self._outbox = self._outbox, None
                await self._wind_down(outbox, FLUSH_S, "the program has ended")
            if self._ending is not None:
                await asyncio.wait([self._ending])
