"""One recogniser for all sessions of a process: a bounded, fair queue before it, and a thread of its own for its work.

What is needed goes before what is nice to have. Under load a session's newer piece takes the place of its older one
that still waits, so that partial transcripts come in longer steps; final ones are refused when too many wait, or when
one has waited too long, with a time to come back. What is at work cannot be stopped: those that are not final go in
batches that are soon done. Where the processor has too much to do, so that the event loop is late, partial ones rest
for a while: sound has to be heard before anything else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

from pipeline.errors import Overloaded, TurnRejected
from stages.preprocess.speech.ear import MODEL_RATE
from stages.preprocess.speech.metrics import SpeechMetrics
from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.queue import FairQueue, Waiting
from stages.preprocess.speech.recogniser import Recogniser, Task, Transcription

log = logging.getLogger(__name__)

SMOOTHING = 0.2
"""How much the latest batch counts in what a piece is thought to take."""

FIRST_GUESS_S = 0.1

HOLD_S = 0.1
"""Seconds for which a batch of what is not final may hold up what is; one piece may take longer."""

LATE_S = 0.02
"""Seconds by which the event loop may be late before partial transcripts have to rest."""

REST = 10
"""How many times as long as it is late they rest, and the longest such rest in seconds."""
LONGEST_REST_S = 5.0


class Transcriber:
    """Lets `recogniser` work on pieces; use as an async context manager.

    Args:
        recogniser: What it is about.
        queue: Final pieces that may wait.
        batch: Pieces that are recognised at once.
        max_wait_s: Seconds that a final piece may wait.
        metrics: What is counted.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        queue: int = 64,
        batch: int = 8,
        max_wait_s: float = 10.0,
        metrics: SpeechMetrics | None = None,
    ) -> None:
        self._recogniser = recogniser
        self._room, self._batch, self._max_wait_s = queue, batch, max_wait_s
        self.metrics = metrics or SpeechMetrics()
        self._queue = FairQueue()
        self._arrived = asyncio.Event()
        self._pace = FIRST_GUESS_S
        self._rests_until = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-asr")
        self._task: asyncio.Task[None] | None = None
        self.busy_since: float | None = None

    @property
    def window_s(self) -> float:
        """Seconds of sound that are recognised at once, at most."""
        return self._recogniser.window_s

    async def __aenter__(self) -> Transcriber:
        self.metrics.watch(self._queue.count)
        self._task = asyncio.create_task(self._run(), name="transcriber")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ask(self, task: Task) -> Answer:
        """The answer to `task`, once it is there; whoever cancels it does not want it any more.

        It fails with `Overloaded` if too many wait, or if it has waited too long.
        """
        answer = Answer()
        waiting = self._queue.count("final") if task.urgency == "final" else 0
        if waiting >= self._room:
            self._refuse(answer, f"{waiting} pieces of speech wait to be recognised, which is the most", waiting)
        else:
            before = self._queue.replaced
            self._queue.add(Waiting(task, answer, time.monotonic()))
            self.metrics.replaced.inc(self._queue.replaced - before)
            self._arrived.set()
        return answer

    def _refuse(self, answer: Answer, why: str, waiting: int) -> None:
        self.metrics.refused.inc()
        answer.set_exception(Overloaded(why, retry_after=max(1.0, waiting * self._pace)))
        answer.exception()  # somebody has looked at it, should nobody else

    async def _run(self) -> None:
        while True:
            self._arrived.clear()
            rest = self._rests_until - time.monotonic()
            others = max(1, int(HOLD_S / self._pace))
            taken = self._queue.take(self._batch, self._recogniser.kind, others=others, partials=rest <= 0)
            if batch := self._in_time(taken):
                await self._recognise(batch)
            elif not taken:
                await self._more(rest if rest > 0 and self._queue.count("partial") else None)

    async def _more(self, seconds: float | None) -> None:
        """Wait for another task, but no longer than so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    def _in_time(self, batch: Sequence[Waiting]) -> list[Waiting]:
        """Those of `batch` that have not waited too long; the others are refused."""
        latest = time.monotonic() - self._max_wait_s
        for waiting in batch:
            if waiting.since < latest:
                why = f"the speech was not recognised within {self._max_wait_s:.0f} s"
                self._refuse(waiting.answer, why, self._queue.count("final"))
        return [waiting for waiting in batch if not waiting.answer.done()]

    async def _recognise(self, batch: Sequence[Waiting]) -> None:
        tasks = [waiting.task for waiting in batch]
        began = time.monotonic()
        for waiting in batch:
            waiting.answer.begun = True
            self.metrics.waited.labels(waiting.task.urgency).observe(began - waiting.since)
        loop = asyncio.get_running_loop()
        self.busy_since = began
        try:
            said, ready = await loop.run_in_executor(self._thread, self._work, tasks)
        except TurnRejected as refusal:
            self._answer(batch, [refusal] * len(tasks))
        except Exception as error:  # whatever a model's library raises, who waits for it hears of it
            log.exception("the speech recogniser failed at %d pieces", len(tasks))
            self.metrics.failed.inc(len(tasks))
            self._answer(batch, [error] * len(tasks))
        else:
            self._count(tasks, ready - began)
            if (late := time.monotonic() - ready) > LATE_S:
                self._rests_until = time.monotonic() + min(REST * late, LONGEST_REST_S)
            self._answer(batch, said)
        finally:
            self.busy_since = None

    def _work(self, tasks: Sequence[Task]) -> tuple[list[Transcription], float]:
        """What is said in `tasks`, and when that was known."""
        return self._recogniser.recognise(tasks), time.monotonic()

    def _answer(self, batch: Sequence[Waiting], answers: Sequence[Transcription | Exception]) -> None:
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
                waiting.answer.exception()
            else:
                waiting.answer.set_result(answer)

    def _count(self, tasks: Sequence[Task], seconds: float) -> None:
        sound = sum(task.samples for task in tasks) / MODEL_RATE
        self._pace += SMOOTHING * (seconds / len(tasks) - self._pace)
        self.metrics.recognising.observe(seconds)
        self.metrics.batch.observe(len(tasks))
        self.metrics.factor.observe(seconds / sound if sound else 0.0)
        for task in tasks:
            self.metrics.recognised.labels(task.urgency).inc()
            self.metrics.sound.labels(task.urgency).inc(task.samples / MODEL_RATE)
