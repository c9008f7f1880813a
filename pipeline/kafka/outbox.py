"""What is handed over to one producer: batches of records for each partition, sent one after the other.

aiokafka takes single records as well, with a future and a task switch for each; a batch has one of its own.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable, Set
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from pipeline.errors import BusUnavailable, MessageTooLarge
from pipeline.kafka.settings import KafkaSettings

HEAR_S = 0.5
"""How long those who sent a batch may take to hear that it is given up; who waits for something else is cancelled."""

END_S = 10.0
"""How long what is cancelled may take to end."""


class _Batch:
    """Records that go to a partition together: when the first came, and of each who waits for it, and its size."""

    __slots__ = ("began", "builder", "waiting")

    def __init__(self, builder: Any, began: float) -> None:
        self.builder = builder
        self.began = began
        self.waiting: list[tuple[Future[int], int]] = []


class Outbox:
    """Records on their way through `producer`, in order for each partition. Started and stopped by its owner.

    One batch of a partition is on its way at a time, while the next one fills. If one fails, so do those behind it:
    nothing is written after a record that is lost. `settled` is called with the number of records of each batch of
    which it is known now whether it stands in the log, and `failed` with what has ended the producer.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        settings: KafkaSettings,
        *,
        settled: Callable[[int], None],
        failed: Callable[[Outbox, BaseException], None],
    ) -> None:
        self.producer = producer
        self._settings = settings
        self._settled = settled
        self._failed = failed
        self._queues: dict[TopicPartition, deque[_Batch]] = {}
        self._unsettled: dict[_Batch, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up = KafkaError("given up")
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return sum(len(batch.waiting) for batch in self._unsettled)

    @property
    def oldest(self) -> float | None:
        """When the oldest batch on its way was begun, on the loop's clock."""
        return next((batch.began for batch in self._unsettled), None)

    def put(self, tap: TopicPartition, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> Future[int]:
        """Hand a record over; the future is its offset."""
        queue = self._queues.get(tap)
        if queue is None:
            queue = self._queues[tap] = deque()
            self._start(tap, queue)
        if not queue or queue[-1].builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
            batch = _Batch(self.producer.create_batch(), self._loop.time())
            batch.builder.append(timestamp=None, key=key, value=value, headers=headers)
            queue.append(batch)
            self._unsettled[batch] = None
        offset: Future[int] = self._loop.create_future()
        queue[-1].waiting.append((offset, len(value)))
        return offset

    def _start(self, tap: TopicPartition, queue: deque[_Batch]) -> None:
        task = self._loop.create_task(self._deliver(tap, queue))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, tap, queue))

    async def _deliver(self, tap: TopicPartition, queue: deque[_Batch]) -> None:
        while queue:
            batch = queue[0]
            batch.builder.close()
            sent = await self.producer.send_batch(batch.builder, tap.topic, partition=tap.partition)
            first = (await sent).offset
            del self._unsettled[queue.popleft()]
            for number, (offset, _) in enumerate(batch.waiting):
                if not offset.done():
                    offset.set_result(first + number)
            self._settled(len(batch.waiting))

    def _ended(self, tap: TopicPartition, queue: deque[_Batch], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = self._given_up if task.cancelled() else task.exception()
        if error is not None:
            for batch in queue:
                self._fail(tap, batch, error)
            queue.clear()
            self._failed(self, error)
        if queue:
            self._start(tap, queue)
        else:
            del self._queues[tap]

    def _fail(self, tap: TopicPartition, batch: _Batch, error: BaseException) -> None:
        topic = tap.topic.removeprefix(self._settings.topic_prefix)
        del self._unsettled[batch]
        for offset, size in batch.waiting:
            if offset.done():
                continue
            if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                offset.set_exception(MessageTooLarge(topic, size=size, limit=self._settings.max_request_bytes))
            else:
                offset.set_exception(BusUnavailable(self._settings.bootstrap, str(error)))
            offset.exception()  # retrieved: whoever hands over and never asks shall cause no noise
        self._settled(len(batch.waiting))

    async def flush(self) -> None:
        """Return when all that was handed over is delivered, or has failed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def give_up(self, error: KafkaError) -> None:
        """Fail all that is not delivered, and deliver nothing more. aiokafka offers no public way to do so."""
        self._given_up = error
        sender, accumulator = self.producer._sender, self.producer._message_accumulator  # noqa: SLF001
        tasks = {sender.sender_task, *(task for task in asyncio.all_tasks() if _sends_for(sender, task))}
        await _end(tasks)
        waiting = [batch for batches in accumulator._batches.values() for batch in batches]  # noqa: SLF001
        accumulator.fail_all(error)
        for batch in waiting:
            if batch._drain_waiter.done():  # noqa: SLF001
                batch._drain_waiter.exception()  # noqa: SLF001 (nobody waits: it would be told as never retrieved)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HEAR_S)  # they hear it from their batches
        await _end(self._tasks)


async def _end(tasks: Set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)


def _sends_for(sender: Any, task: asyncio.Task[Any]) -> bool:
    """Whether `task` is a request on its way; the sender's own task waits for those before it ends."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_code.co_name == "_send_produce_req" and frame.f_locals.get("self") is sender
