"""Bringing one job to its end: an answer, a refusal, or a dead letter and one word to the client.

Decides what each error means; knows nothing of partitions, commits or rebalances.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback

import msgspec

from pipeline.bus import Bus, Headers, Record
from pipeline.errors import BusUnavailable, MessageTooLarge, PenstockError, Retriable, TurnRejected, UndecodableMessage
from pipeline.folding import FoldingJob
from pipeline.headers import PASSED_ON, REPLY_TO, TURN, number
from pipeline.holding import Holding, Lane
from pipeline.job import Job, Stopped
from pipeline.journal import under
from pipeline.messages import DeadLetter, Message, Problem
from pipeline.stage import Settled, Stage, Stream, finished
from pipeline.telemetry import LoopMetrics
from pipeline.topics import REPLIES, TOPIC_OF

log = logging.getLogger(__name__)

LONGEST_TRACEBACK = 8000
"""Characters of a traceback in a letter: its end, which says where and what."""


def problem_of(refusal: TurnRejected) -> Problem:
    """What the client is told of `refusal`."""
    return Problem(refusal.code, str(refusal), refusal.param, getattr(refusal, "retry_after", None))


class Answering:
    """Lets `stage` work on jobs and publishes to `bus` what comes of it."""

    def __init__(self, stage: Stage, bus: Bus, metrics: LoopMetrics) -> None:
        self.stage = stage
        self.metrics = metrics
        self._bus = bus
        self._reply_partitions: int | None = None
        self._published = 0

    def tell(self) -> None:
        """Count in the metrics what was published since the last time; a lock for each message would cost more."""
        self.metrics.published.inc(self._published)
        self._published = 0

    async def answer(self, holding: Holding, job: Job, headers: Headers, lane: Lane | None) -> bool:
        """Bring `job` so far that all it has to say is on its way to the log; False if the bus does not take it.

        Whether it gets there, `job.unsure` tells. Without a `lane`, bring it to its end, whatever it takes.
        """
        attempt = reached = 0
        while True:
            attempt += 1
            try:
                await job.within_time(self._attempt(holding, job, headers, lane))
                return True
            except Stopped as stop:
                self.metrics.stopped.inc()
                await job.resolved()
                await self._say(holding, job, headers, self.stage.stopped(job.message, job.published(), stop.reason))
                return True
            except TurnRejected as refusal:
                self.metrics.refused.inc()
                await job.resolved()
                await self._say(holding, job, headers, self._failed(job, problem_of(refusal)))
                return True
            except Retriable as error:
                if lane is not None and isinstance(error, BusUnavailable):
                    return False
                if job.progress > reached:  # it got over what failed before
                    attempt, reached = 1, job.progress
                if attempt >= self.stage.retry.attempts and not isinstance(error, BusUnavailable):
                    await self._bury(holding, job, headers, error, attempt)
                    return True
                await self._wait_to_retry(job, error, attempt)
            except Exception as error:  # noqa: BLE001 - the one supervisor: whatever breaks, the turn is answered
                await self._bury(holding, job, headers, error, attempt)
                return True

    async def _attempt(self, holding: Holding, job: Job, headers: Headers, lane: Lane | None) -> None:
        outputs = self._outputs(job)
        try:
            async for output in outputs:
                if lane is not None and lane.failed:
                    raise BusUnavailable("the log", "what comes before in the same lane is not written yet")
                if isinstance(output, Settled):
                    job.settle(output.messages, holding.settle)
                else:
                    await self._publish(holding, job, headers, output)
        finally:
            await outputs.aclose()
        if lane is None:
            await job.delivered()

    def _outputs(self, job: Job) -> Stream:
        if self.stage.folding is not None:
            assert isinstance(job, FoldingJob)
            return self.stage.folding(job.read(self.stage.last))
        assert self.stage.each is not None
        message: Message | None = job.message
        if self.stage.resume is not None and (published := job.published()):
            message = self.stage.resume(job.message, published)
        return _nothing() if message is None else self.stage.each(message)

    async def _wait_to_retry(self, job: Job, error: Retriable, attempt: int) -> None:
        self.metrics.retries.inc()
        retry = self.stage.retry
        wait = min(retry.most, retry.first * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        log.warning(
            "%s: turn %s: %s; attempt %d in %.1f s", self.stage.name, job.message.turn, error, attempt + 1, wait
        )
        await job.resolved()
        job.forget_unsure()
        await asyncio.sleep(wait)

    async def _publish(self, holding: Holding, job: Job, headers: Headers, output: Message) -> None:
        topic = TOPIC_OF[type(output)]
        partition: int | None = None
        if topic is self.stage.journal:
            assert holding.epoch is not None
            partition, headers = holding.part.number, under(holding.epoch, headers)
        elif topic is REPLIES:
            partition = await self._reply_partition(headers)
            if partition is None:
                return
        delivery = await self._bus.publish(
            topic.name, topic.encode(output), key=job.first.key, headers=headers, partition=partition
        )
        self._published += 1
        job.outputs.append((output, delivery))
        if job.open:
            job.follow(delivery)

    async def _reply_partition(self, headers: Headers) -> int | None:
        """Where the client's gateway reads; None if nobody waits for a reply: the turn came straight from the bus."""
        wanted = number(headers.get(REPLY_TO, ""))
        if wanted is None:
            return None
        if self._reply_partitions is None:
            self._reply_partitions = await self._bus.partitions(REPLIES.name)
        if wanted >= self._reply_partitions:
            log.warning("a reply is asked for on partition %d of %s, which has none such", wanted, REPLIES.name)
            return None
        return wanted

    async def _say(self, holding: Holding, job: Job, headers: Headers, *outputs: Message) -> None:
        """Publish a turn's last words, however often it takes."""
        attempt = 0
        while True:
            attempt += 1
            try:
                job.clear()
                for output in outputs:
                    await self._publish(holding, job, headers, output)
                await job.delivered()
                return
            except BusUnavailable as error:
                await self._wait_to_retry(job, error, attempt)

    async def _bury(self, holding: Holding, job: Job, headers: Headers, error: Exception, attempts: int) -> None:
        log.error("%s: turn %s failed for good: %s", self.stage.name, job.message.turn, _place(error))
        self.metrics.buried.inc()
        await job.resolved()
        letter = self._letter(job.first, error, attempts)
        problem = Problem("internal_error", f"the turn failed in stage {self.stage.name!r}; it has been set aside")
        end = self._failed(job, problem)
        try:
            await self._say(holding, job, headers, letter)
        except MessageTooLarge:
            await self._say(holding, job, headers, msgspec.structs.replace(letter, value=b"", traceback=""))
        await self._say(holding, job, headers, end)

    def _failed(self, job: Job, problem: Problem) -> Message:
        """The end of a turn for `problem`. Where a part was said, the end goes the same way: it is awaited there."""
        published = job.published()
        end = (self.stage.stopped if published else finished)(job.message, published, "failed")
        return msgspec.structs.replace(end, problem=problem)

    async def bury_unread(self, holding: Holding, record: Record, error: UndecodableMessage) -> None:
        """A record that is no message: it still gets its dead letter, and its client a word."""
        message = Message(record.key, record.headers.get(TURN, ""))
        job = Job(record, message, patience=0.0, grace=0.0)
        await self._bury(holding, job, job.passed_on, error, 1)
        holding.window.finish(record.offset)

    def _letter(self, record: Record, error: Exception, attempts: int) -> DeadLetter:
        return DeadLetter(
            session=record.key,
            turn=record.headers.get(TURN, ""),
            stage=self.stage.name,
            topic=record.part.topic,
            partition=record.part.number,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers={name: record.headers[name] for name in PASSED_ON if name in record.headers},
            error=f"{type(error).__name__}: {error}",
            attempts=attempts,
            traceback="".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:],
        )


def _place(error: Exception) -> str:
    """What went wrong and where, for the log: without the words of errors that may repeat what a user said."""
    words = f": {error}" if isinstance(error, PenstockError) else ""
    return f"{type(error).__name__}{words}\n{''.join(traceback.format_tb(error.__traceback__))}".rstrip()


async def _nothing() -> Stream:
    return
    yield
