"""Working off what lanes hold: the jobs of a lane one after the other, and several lanes at once.

A job's successor need not wait until what the job published stands in the log. If something does not get there, it and
all that came after it in the lane is done again, in order. Knows nothing of commits, rebalances and members.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline import request
from pipeline.answering import Answering
from pipeline.cancels import Cancels
from pipeline.holding import Holding, Lane
from pipeline.job import Job
from pipeline.slots import Slots
from pipeline.stage import Stage
from pipeline.telemetry import LoopMetrics, Tracing

WATCH_EVERY = 0.05
"""Seconds between two looks at who is past the deadline."""


class Working:
    """Runs the jobs of lanes, each as soon as its lane and the stage's concurrency allow.

    `cancelled` are the turns not to be begun; `progressed` is called when something of a paused partition is done.
    """

    def __init__(
        self,
        stage: Stage,
        answering: Answering,
        *,
        metrics: LoopMetrics,
        tracing: Tracing,
        cancelled: Cancels,
        progressed: Callable[[Holding], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.stage = stage
        self.metrics = metrics
        self.draining = False
        self._answering = answering
        self._tracing = tracing
        self._cancelled = cancelled
        self._progressed = progressed
        self._slots = Slots(stage.concurrency if stage.each else None, self._step, tasks)
        self._running: dict[Job, None] = {}

    @property
    def in_hand(self) -> int:
        """Turns being worked on."""
        return len(self._running)

    def add(self, lane: Lane, job: Job) -> None:
        """Run `job` after those that are in `lane`."""
        lane.jobs.append(job)
        self._run(lane)

    def open(self, holding: Holding) -> None:
        """Begin with what came before `holding` was open."""
        for lane in list(holding.lanes.values()):
            self._run(lane)

    async def watch(self) -> None:
        """Stop what is past its deadline and keep the metrics up to date, until cancelled."""
        try:
            while True:
                await asyncio.sleep(WATCH_EVERY)
                self._look(time.time())
        finally:
            self._look(time.time())

    def _look(self, now: float) -> None:
        self._answering.tell()
        self.metrics.in_hand.set(self.in_hand)
        for job in self._running:
            job.watch(now)

    def _run(self, lane: Lane) -> None:
        if not lane.running and lane.holding.opened.is_set():
            lane.running = True
            self._slots.ask(lane)

    async def _step(self, lane: Lane, task: asyncio.Task[Any]) -> bool:
        """Run the lane's next job; whether there is another."""
        holding = lane.holding
        if not self._may_begin(holding):
            return False
        holding.tasks.add(task)
        try:
            if lane.failed:
                await self._redo(lane)
            else:
                await self._run_next(lane)
        except asyncio.CancelledError:
            if not holding.given_up or task.cancelling() > 1:
                raise
        finally:
            holding.tasks.discard(task)
            if holding.given_up:
                task.uncancel()  # the partition is lost; the task goes on with another
        if holding.paused:
            self._progressed(holding)
        if lane.jobs or lane.failed:
            return True
        lane.running = False
        holding.leave(lane)
        return False

    def _may_begin(self, holding: Holding) -> bool:
        return not (self.draining or holding.given_up)

    async def _run_next(self, lane: Lane) -> None:
        job, holding = lane.jobs[0], lane.holding
        if (holding.jobs.get(job.id) is not job or holding.knows(job.id)) and not await self._is_new(lane, job):
            self.metrics.repeated.inc()
            holding.finish(job)
        elif await self._work(holding, lane, job):
            self._published(lane, job)
        else:
            lane.on_the_way[job] = False
            lane.failed = True
        lane.jobs.popleft()

    def _published(self, lane: Lane, job: Job) -> None:
        """All that `job` has to say has been handed over."""
        unsure = job.unsure
        if not unsure and job.written:
            self._finish(lane.holding, job)
            return
        lane.on_the_way[job] = True
        lane.failed |= not unsure
        job.awaited = len(unsure)
        for delivery in unsure:
            delivery.add_done_callback(partial(self._heard, lane, job))

    async def _is_new(self, lane: Lane, job: Job) -> bool:
        """Whether the turn has not been done yet; its first record may still be on its way to the log."""
        holding = lane.holding
        first = holding.jobs.get(job.id, job)
        if first is not job and first in lane.on_the_way:
            await first.resolved()
            await asyncio.sleep(0)
        return not holding.knows(job.id)

    async def _work(self, holding: Holding, lane: Lane | None, job: Job) -> bool:
        """Let the stage work on `job`; without a `lane`, until all that it says stands in the log."""
        holding.jobs[job.id] = job
        if job.began == 0.0:
            job.began = time.perf_counter()
            job.recovered = holding.published.pop(job.id, [])
        if job.id in self._cancelled:
            job.stop("cancelled")
        self._running[job] = None
        request.begin(job.request)
        try:
            with self._tracing.span(self.stage.name, job.passed_on) as headers:
                return await self._answering.answer(holding, job, headers, lane)
        finally:
            self._running.pop(job, None)

    def _finish(self, holding: Holding, job: Job) -> None:
        self.metrics.seconds.observe(time.perf_counter() - job.began)
        holding.finish(job)

    def _heard(self, lane: Lane, job: Job, delivery: asyncio.Future[int]) -> None:
        """Of something that `job` published it is known now whether it stands in the log."""
        holding = lane.holding
        job.awaited -= 1
        stands = not delivery.cancelled() and delivery.exception() is None
        if holding.given_up or lane.failed or job not in lane.on_the_way or (stands and job.awaited):
            return
        if not (stands and job.written):
            lane.failed = True
            self._run(lane)
            return
        del lane.on_the_way[job]
        self._finish(holding, job)
        if holding.paused:
            self._progressed(holding)
        holding.leave(lane)

    async def _redo(self, lane: Lane) -> None:
        """Do again, in their order and one by one, the jobs of which something does not stand in the log."""
        for job in list(lane.on_the_way):
            await job.resolved()
        for job, whole in list(lane.on_the_way.items()):
            if not (whole and job.written):
                self.metrics.retries.inc()
                job.forget_unsure()
                await self._work(lane.holding, None, job)
            del lane.on_the_way[job]
            self._finish(lane.holding, job)
        lane.failed = False
