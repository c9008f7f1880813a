"""The one loop that runs any stage: it takes records from a bus, lets the stage work on them, and commits.

Order per key with concurrency across keys; the offset before the oldest unfinished is committed; work goes on through a
rebalance that gives its partition back; a new owner goes on where the former one was cut off. Knows no particular stage
and no particular bus.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from pipeline.answering import Answering
from pipeline.bus import Bus, Member, Part, Record
from pipeline.cancels import Cancels
from pipeline.errors import BusUnavailable, UndecodableMessage
from pipeline.holding import Holding, Id, Lane
from pipeline.job import Job
from pipeline.messages import Message
from pipeline.slots import Slots
from pipeline.stage import Stage
from pipeline.takeover import Takeover
from pipeline.telemetry import LoopMetrics, Tracing

log = logging.getLogger(__name__)

WATCH_EVERY = 0.05
"""Seconds between two looks at who is past the deadline."""


@dataclass(frozen=True)
class LoopSettings:
    """How a loop goes about its work; times in seconds.

    `patience` is the most that a turn may take, and the deadline of one that names none; `drain` how long a stopping
    loop waits for work in hand; `batch` the most records taken from the bus at once.
    """

    commit_every: float = 0.5
    drain: float = 10.0
    patience: float = 600.0
    batch: int = 500


class Loop:
    """Runs `stage` on `bus` as a member of `group`. `run` returns after `drain`, or raises what ended it."""

    def __init__(
        self,
        stage: Stage,
        bus: Bus,
        *,
        group: str | None = None,
        settings: LoopSettings | None = None,
        registry: CollectorRegistry | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.stage = stage
        self.metrics = LoopMetrics(registry or CollectorRegistry(), stage.name)
        self._bus = bus
        self._group = group or stage.name
        self._settings = settings or LoopSettings()
        self._tracing = tracing or Tracing()
        self._holdings: dict[Part, Holding] = {}
        self._answering = Answering(stage, bus, self.metrics)
        self._takeover = Takeover(stage, bus)
        self._cancelled = Cancels(bus, self._stop)
        self._slots = Slots(stage.concurrency)
        self._running: dict[Job, None] = {}
        self._rebalancing = False
        self._draining = asyncio.Event()
        self._joined = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._member: Member | None = None

    @property
    def parts(self) -> frozenset[Part]:
        """The partitions in hand."""
        return frozenset(self._holdings)

    @property
    def joined(self) -> bool:
        """Whether the group has given this member its share."""
        return self._joined.is_set()

    def drain(self) -> None:
        """Take nothing new, finish what is in hand, and let `run` return."""
        self._draining.set()

    async def run(self) -> None:
        """Work until drained.

        Raises:
            OwnershipLost: another process has taken this member's place.
            TopicMissing: the route is not there.
        """
        await self._takeover.check_route()
        try:
            async with self._tasks:
                await self._work_as_member()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _work_as_member(self) -> None:
        helpers = []
        if self.stage.cancellable:
            helpers.append(self._tasks.create_task(self._cancelled.hear()))
        async with self._bus.member(self._group, [self.stage.reads.name], self) as member:
            self._member = member
            helpers.append(self._tasks.create_task(self._take_records()))
            helpers.append(self._tasks.create_task(self._commit_regularly()))
            watching = self._tasks.create_task(self._watch_deadlines())
            await self._draining.wait()
            for helper in helpers:
                helper.cancel()
            await self._finish_work()
            watching.cancel()
            await self._commit(self._holdings.values())

    # ---- taking records ------------------------------------------------------------------------------------------

    async def _take_records(self) -> None:
        assert self._member is not None
        while True:
            try:
                records = await self._member.poll(limit=self._room(), timeout=0.1 if self._any_paused() else 1.0)
            except BusUnavailable as error:
                log.warning("%s: %s; trying again", self.stage.name, error)
                await asyncio.sleep(1.0)
                continue
            self.metrics.records.inc(len(records))
            for record in records:
                self._take(record)
            for holding in self._holdings.values():
                self._regulate(holding)

    def _load(self, holding: Holding) -> int:
        return holding.unread if self.stage.folding else holding.window.span

    def _room(self) -> int:
        rooms = (self.stage.span - self._load(holding) for holding in self._holdings.values() if not holding.paused)
        return max(1, min(self._settings.batch, min(rooms, default=1)))

    def _any_paused(self) -> bool:
        return any(holding.paused for holding in self._holdings.values())

    def _regulate(self, holding: Holding) -> None:
        """Pause a partition that is at the bound, resume one that is below it again."""
        if self._member is None or holding.part not in self._holdings:
            return
        full = self._load(holding) >= self.stage.span
        if full and not holding.paused:
            self._member.pause(holding.part)
            self.metrics.pauses.inc()
        elif holding.paused and not full:
            self._member.resume(holding.part)
        holding.paused = full

    def _take(self, record: Record) -> None:
        holding = self._holdings.get(record.part)
        if holding is None or not holding.started(record):
            return
        if not holding.fence.passes(record):
            self.metrics.fenced.inc()
            holding.window.finish(record.offset)
            return
        try:
            message: Message = self.stage.reads.decode(record.value)
        except UndecodableMessage as error:
            self._start(holding, self._answering.bury_unread(holding, record, error))
            return
        self._queue(holding, record, message)

    def _queue(self, holding: Holding, record: Record, message: Message) -> None:
        turn = (message.session, message.turn)
        if holding.knows(turn):
            self.metrics.repeated.inc()
            holding.window.finish(record.offset)
            return
        if self.stage.folding and turn in holding.jobs:
            holding.jobs[turn].add(record, message)
            return
        job = Job(record, message, patience=self._settings.patience, grace=self.stage.grace)
        holding.jobs.setdefault(turn, job)
        lane = holding.lane(turn if self.stage.folding else record.key)
        lane.jobs.append(job)
        self._run(holding, lane)

    def _run(self, holding: Holding, lane: Lane) -> None:
        if not lane.running:
            lane.running = True
            self._start(holding, self._run_lane(holding, lane))

    def _start(self, holding: Holding, work: Coroutine[None, None, None]) -> None:
        holding.own(self._tasks.create_task(work))

    # ---- working -------------------------------------------------------------------------------------------------

    async def _run_lane(self, holding: Holding, lane: Lane) -> None:
        await holding.opened.wait()
        while lane.jobs or lane.failed:
            if self.stage.folding:
                await self._step(holding, lane)
            else:
                async with self._slots:
                    if self._draining.is_set():
                        return
                    await self._step(holding, lane)
            self._regulate(holding)
        lane.running = False
        holding.leave(lane)

    async def _step(self, holding: Holding, lane: Lane) -> None:
        """Run the lane's next job. Its successor need not wait until what it published stands in the log."""
        if lane.failed:
            await self._redo(holding, lane)
            return
        job = lane.jobs[0]
        if (holding.jobs.get(job.id) is not job or holding.knows(job.id)) and not await self._is_new(
            holding, lane, job
        ):
            self.metrics.repeated.inc()
            holding.finish(job)
        elif not await self._work(holding, lane, job):
            lane.on_the_way[job] = None
            lane.failed = True
        elif unsure := job.unsure:
            lane.on_the_way[job] = None
            for delivery in unsure:
                delivery.add_done_callback(partial(self._heard, holding, lane, job))
        elif job.written:
            self._finish(holding, job)
        else:
            lane.on_the_way[job] = None
            lane.failed = True
        lane.jobs.popleft()

    async def _is_new(self, holding: Holding, lane: Lane, job: Job) -> bool:
        """Whether the turn has not been done yet; its first record may still be on its way to the log."""
        first = holding.jobs.get(job.id, job)
        if first is not job and first in lane.on_the_way:
            await first.settled()
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
        try:
            with self._tracing.span(self.stage.name, job.passed_on) as headers:
                if lane is not None:
                    return await self._answering.hand_over(holding, lane, job, headers)
                await self._answering.answer(holding, job, headers)
        finally:
            self._running.pop(job, None)
        return True

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self.metrics.in_hand.set(len(self._running))
            now = time.time()
            for job in self._running:
                job.watch(now)

    def _finish(self, holding: Holding, job: Job) -> None:
        self.metrics.seconds.observe(time.perf_counter() - job.began)
        holding.finish(job)

    def _heard(self, holding: Holding, lane: Lane, job: Job, delivery: asyncio.Future[int]) -> None:
        """Of something that `job` published it is known now whether it stands in the log."""
        if self._holdings.get(holding.part) is not holding or job not in lane.on_the_way:
            return
        if delivery.cancelled() or delivery.exception() is not None:
            lane.failed = True
            self._run(holding, lane)
        elif job.written:
            del lane.on_the_way[job]
            self._finish(holding, job)
            self._regulate(holding)
            holding.leave(lane)

    async def _redo(self, holding: Holding, lane: Lane) -> None:
        """Do again, in their order and one by one, the jobs of which something does not stand in the log."""
        for job in list(lane.on_the_way):
            await job.settled()
        for job in list(lane.on_the_way):
            if not job.written:
                self.metrics.retries.inc()
                job.forget_unsure()
                await self._work(holding, None, job)
            del lane.on_the_way[job]
            self._finish(holding, job)
        lane.failed = False

    def _stop(self, turn: Id) -> None:
        for holding in self._holdings.values():
            if turn in holding.jobs:
                holding.jobs[turn].stop("cancelled")

    # ---- committing and rebalancing ------------------------------------------------------------------------------

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_every)
            if not self._rebalancing:
                await self._commit(self._holdings.values())

    async def _commit(self, holdings: Collection[Holding]) -> None:
        offsets = {h.part: offset for h in holdings if (offset := h.uncommitted()) is not None}
        if self._member is None or not offsets:
            return
        try:
            await self._member.commit(offsets)
        except BusUnavailable as error:
            log.warning("%s: not committed: %s", self.stage.name, error)
            return
        for part, offset in offsets.items():
            if part in self._holdings:
                self._holdings[part].committed = offset

    async def revoked(self, parts: Collection[Part]) -> None:
        """Commit while it is still possible; the work goes on, for most is usually given back."""
        self._rebalancing = True
        await self._commit([self._holdings[part] for part in parts if part in self._holdings])

    async def assigned(self, parts: Collection[Part]) -> None:
        """Go on with what was given back, give up what was not, begin what is new."""
        self._rebalancing = False
        for part in self._holdings.keys() - set(parts):
            self._give_up(part)
        for part in parts:
            if part in self._holdings:
                self._go_on(self._holdings[part])
            else:
                self._begin(part)
        self._joined.set()

    def _give_up(self, part: Part) -> None:
        holding = self._holdings.pop(part)
        if holding.window.span:
            self.metrics.lost.inc()
        holding.abandon()

    def _go_on(self, holding: Holding) -> None:
        if self._member is None:
            return
        if holding.window.next is not None:
            self._member.seek(holding.part, holding.window.next)
        if holding.paused:
            self._member.pause(holding.part)

    def _begin(self, part: Part) -> None:
        holding = self._holdings[part] = Holding(part)
        if self.stage.journal is None:
            holding.open()
        else:
            self._start(holding, self._takeover.open(holding))

    async def _finish_work(self) -> None:
        """Let the work in hand come to its end, for as long as a drain may take; give up the rest."""
        tasks = {task for holding in self._holdings.values() for task in holding.tasks if self.stage.each}
        waiting = {task for holding in self._holdings.values() if not holding.opened.is_set() for task in holding.tasks}
        if tasks - waiting:
            await asyncio.wait(tasks - waiting, timeout=self._settings.drain)
        jobs = [
            job for holding in self._holdings.values() for lane in holding.lanes.values() for job in lane.on_the_way
        ]
        await asyncio.gather(*(job.settled(self._settings.drain) for job in jobs))
        await asyncio.sleep(0)  # for what waits to hear of it
        for holding in self._holdings.values():
            holding.abandon()
        leftovers = {task for holding in self._holdings.values() for task in holding.tasks}
        if leftovers:
            await asyncio.wait(leftovers, timeout=5.0)
