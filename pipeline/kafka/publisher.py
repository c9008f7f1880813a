"""Publishing: an idempotent producer, kept in order and within bounds, and replaced when it has died."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from pipeline.bus import Headers, Part
from pipeline.errors import BusUnavailable, MessageTooLarge, PenstockError, TopicMissing
from pipeline.kafka.clients import connected, connection, stop
from pipeline.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)

BATCH_BYTES = 128 << 10
"""A full batch makes publishers wait for the request before it, so it is larger than aiokafka's 16 KiB."""

FLUSH_S = 10.0
"""How long a producer that is to end may take to deliver what it has."""

_Sent = tuple[float, "Future[int]", AIOKafkaProducer, str, int]
"""When a record was handed over (on the loop's clock), its caller's future, its producer, topic and size in bytes."""


class Publisher:
    """Hands records to a producer.

    A producer of aiokafka that has failed once is dead for good: the failed batch used up sequence numbers, so the
    broker refuses all that follow in that partition. It is wound down and another takes its place.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._taken = 0
        self._freed = asyncio.Event()
        self._on_the_way: dict[Future[Any], _Sent] = {}
        self._settled = self._settle
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Connect now, so that the first record need not wait for it."""
        await self._ready()

    async def send(self, part: Part, key: bytes, value: bytes, headers: Headers) -> Future[int]:
        """Hand a record over; see `Bus.publish`."""
        producer = self._producer
        if self._taken >= self._settings.publish_window:
            await self._room()
        if producer is not self._producer or (self._ending is not None and not self._ending.done()):
            # who comes after a record that failed must know of that before anything new is written
            raise BusUnavailable(self._settings.bootstrap, "the producer has failed, another takes its place")
        self._taken += 1
        raw = [(name, text.encode()) for name, text in headers.items()]
        try:
            if producer is None:
                producer = await self._ready()
            sent = await producer.send(self._settings.topic_prefix + part.topic, value, key, part.number, headers=raw)
        except MessageSizeTooLargeError:
            self._release()
            size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, raw)
            raise MessageTooLarge(part.topic, size=size, limit=self._settings.max_request_bytes) from None
        except KafkaError as error:
            self._release()
            raise self._refused(producer, part.topic, error) from error
        except BaseException:
            self._release()
            raise
        offset: Future[int] = self._loop.create_future()
        self._on_the_way[sent] = (self._loop.time(), offset, producer, part.topic, len(value))
        sent.add_done_callback(self._settled)
        return offset

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

    def _release(self) -> None:
        self._taken -= 1
        self._freed.set()

    def _settle(self, sent: Future[Any]) -> None:
        """Kafka has acknowledged a record, or will not."""
        self._release()
        _, offset, producer, topic, size = self._on_the_way.pop(sent)
        error = sent.exception()
        if error is not None:
            self._retire(producer, error)
        if offset.done():
            return
        if error is None:
            offset.set_result(sent.result().offset)
            return
        if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            offset.set_exception(MessageTooLarge(topic, size=size, limit=self._settings.max_request_bytes))
        else:
            offset.set_exception(BusUnavailable(self._settings.bootstrap, str(error)))
        offset.exception()  # retrieved: whoever hands over and never asks shall cause no noise

    def _refused(self, producer: AIOKafkaProducer, topic: str, error: KafkaError) -> PenstockError:
        """Why a record could not even be handed over."""
        if isinstance(error, UnknownTopicOrPartitionError):
            return TopicMissing(topic)
        if not isinstance(error, KafkaTimeoutError):
            self._retire(producer, error)
        return BusUnavailable(self._settings.bootstrap, str(error))

    async def _ready(self) -> AIOKafkaProducer:
        """The producer; a new one if there is none. One caller starts it, and the others wait."""
        async with self._starting:
            if self._ending is not None:
                await asyncio.wait([self._ending])  # what was handed over before must not be overtaken
                self._ending = None
            if self._producer is None:
                self._producer = await connected(self._build, self._settings)
            return self._producer

    def _build(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **connection(self._settings),
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_batch_size=min(BATCH_BYTES, self._settings.max_request_bytes),
            max_request_size=self._settings.max_request_bytes,
        )

    def _retire(self, producer: AIOKafkaProducer, error: BaseException, patience_s: float = FLUSH_S) -> None:
        if self._producer is producer:
            log.error("the producer has failed, another takes its place: %s", error)
            self._producer = None
            self._ending = asyncio.create_task(self._wind_down(producer, patience_s, str(error)))

    def expire(self) -> None:
        """Give up what was handed over too long ago, and its producer, so that none of it is written later."""
        patience = self._settings.delivery_timeout_ms / 1000
        oldest = next(iter(self._on_the_way.values()), None)
        if oldest is None or self._producer is None or self._loop.time() - oldest[0] < patience:
            return
        self._retire(self._producer, KafkaTimeoutError(f"no acknowledgement within {patience:g} s"), patience_s=0.0)

    async def _wind_down(self, producer: AIOKafkaProducer, patience_s: float, why: str) -> None:
        """Let what can still be delivered be delivered, and give up the rest."""
        try:
            async with asyncio.timeout(patience_s):
                await producer.flush()
        except TimeoutError:
            log.error("%d records were not acknowledged, and are given up: %s", len(self._on_the_way), why)
            await _give_up(producer, KafkaError(why))
        await stop(producer)

    async def close(self) -> None:
        """Deliver what is on its way, within a deadline, and disconnect."""
        async with self._starting:
            if self._producer is not None:
                producer, self._producer = self._producer, None
                await self._wind_down(producer, FLUSH_S, "the program has ended")
            if self._ending is not None:
                await asyncio.wait([self._ending])


async def _give_up(producer: AIOKafkaProducer, error: KafkaError) -> None:
    """Fail all that `producer` has not delivered, and let it deliver nothing more. It offers no public way to do so."""
    sender, accumulator = producer._sender, producer._message_accumulator  # noqa: SLF001
    tasks = {sender.sender_task, *(task for task in asyncio.all_tasks() if _sends_for(sender, task))}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=FLUSH_S)
    waiting = [batch for batches in accumulator._batches.values() for batch in batches]  # noqa: SLF001
    accumulator.fail_all(error)
    for batch in waiting:
        if batch._drain_waiter.done():  # noqa: SLF001
            batch._drain_waiter.exception()  # noqa: SLF001 (nobody waits for it: it would be told as never retrieved)


def _sends_for(sender: Any, task: asyncio.Task[Any]) -> bool:
    """Whether `task` is a request on its way; the sender's own task waits for those before it ends."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_code.co_name == "_send_produce_req" and frame.f_locals.get("self") is sender
