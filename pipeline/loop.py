"""The one loop that runs any stage: it takes records from a bus, lets the stage work on them, and commits.

Order per key with concurrency across keys; the offset before the oldest unfinished is committed; work goes on through a
rebalance that gives its partition back; a new owner goes on where the former one was cut off. Knows no particular stage
and no particular bus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from pipeline.answering import Answering
from pipeline.bus import Bus, Member, Part, Record
from pipeline.cancels import Cancels
from pipeline.errors import BusUnavailable, UndecodableMessage
from pipeline.flow import Flow
from pipeline.folding import FoldingJob, folding_job
from pipeline.holding import Holding
from pipeline.job import Job
from pipeline.marks import Id, Marks
from pipeline.messages import Message
from pipeline.stage import Stage
from pipeline.takeover import Takeover
from pipeline.telemetry import LoopMetrics, Tracing
from pipeline.working import Working

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """How a loop goes about its work; times in seconds.

    `patience` is the most that a turn may take, and the deadline of one that names none; `drain` how long a stopping
    loop waits for work in hand; `batch` the most records taken from the bus at once: their work is begun before
    anything else comes to its turn, and what they publish has to find room.
    """

    commit_every: float = 0.5
    drain: float = 10.0
    patience: float = 600.0
    batch: int = 100


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
        self._holdings: dict[Part, Holding] = {}
        self._tasks = asyncio.TaskGroup()
        self._answering = Answering(stage, bus, self.metrics)
        self._takeover = Takeover(stage, bus)
        self._cancelled = Cancels(bus, self._stop)
        self._flow = Flow(stage, self._holdings, self.metrics, batch=self._settings.batch)
        self._working = Working(
            stage,
            self._answering,
            metrics=self.metrics,
            tracing=tracing or Tracing(),
            cancelled=self._cancelled,
            progressed=self._flow.regulate,
            tasks=self._tasks,
        )
        self._rebalancing = False
        self._draining = asyncio.Event()
        self._entered = asyncio.Event()
        self._joined = asyncio.Event()
        self.taken = 0
        """Records taken from the bus."""
        self._member: Member | None = None

    @property
    def parts(self) -> frozenset[Part]:
        """The partitions in hand."""
        return frozenset(self._holdings)

    @property
    def in_hand(self) -> int:
        """Turns being worked on."""
        return self._working.in_hand

    @property
    def listening(self) -> int:
        """How many of them are open-ended streams, all of which have read what there is."""
        waiting = any(holding.backlog.count for holding in self._holdings.values())
        return 0 if self.stage.idle_s is None or waiting else self.in_hand

    @property
    def joined(self) -> bool:
        """Whether the group has given this member its share."""
        return self._joined.is_set()

    def drain(self) -> None:
        """Take nothing new, finish what is in hand, and let `run` return."""
        self._working.draining = True
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
            self._member = self._flow.member = member
            self._entered.set()
            helpers.append(self._tasks.create_task(self._take_records()))
            helpers.append(self._tasks.create_task(self._commit_regularly()))
            watching = self._tasks.create_task(self._working.watch())
            await self._draining.wait()
            for helper in helpers:
                helper.cancel()
            await self._finish_work()
            watching.cancel()
            await self._commit(self._holdings.values())

    # ---- taking records ------------------------------------------------------------------------------------------

    async def _take_records(self) -> None:
        assert self._member is not None
        if self.stage.cancellable:
            await self._cancelled.listening()
        while True:
            try:
                records = await self._member.poll(limit=self._flow.room(), timeout=self._flow.patience)
            except BusUnavailable as error:
                log.warning("%s: %s; trying again", self.stage.name, error)
                await asyncio.sleep(1.0)
                continue
            self.taken += len(records)
            self.metrics.records.inc(len(records))
            for record in records:
                self._take(record)
            for holding in self._holdings.values():
                self._flow.regulate(holding)
            if records:
                await asyncio.sleep(0)  # more may be there already, but these come first

    def _take(self, record: Record) -> None:
        holding = self._holdings.get(record.part)
        if holding is None:
            return
        if not holding.noted:
            holding.early.append(record)
            return
        if not holding.started(record):
            return
        if not holding.fence.passes(record):
            self.metrics.fenced.inc()
            holding.window.finish(record.offset)
            return
        try:
            message: Message = self.stage.reads.decode(record.value)
        except UndecodableMessage as error:
            burying = self._answering.bury_unread(holding, record, error)
            holding.own(self._tasks.create_task(burying))
            return
        self._queue(holding, record, message)

    def _queue(self, holding: Holding, record: Record, message: Message) -> None:
        turn = (message.session, message.turn)
        if holding.is_done(turn, record.offset):
            self.metrics.repeated.inc()
            holding.window.finish(record.offset)
            if self.stage.idle_s:
                holding.mark(turn, [record.offset])
            return
        if self.stage.folding is None:
            job = Job(record, message, patience=self._settings.patience, grace=self.stage.grace)
            holding.jobs.setdefault(turn, job)
            self._working.add(holding.lane(record.key), job)
        elif isinstance(present := holding.jobs.get(turn), FoldingJob) and not present.closed:
            present.add(record, message)
        else:
            holding.jobs.pop(turn, None)  # one that was closed, and is coming to its end
            others = sum(len(one.jobs) for one in self._holdings.values()) if self.stage.idle_s else 0
            job = folding_job(self.stage, record, message, holding.backlog, self._settings.patience, others)
            holding.jobs[turn] = job
            self._working.add(holding.lane(turn), job)

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
        commits = {h.part: commit for h in holdings if (commit := h.uncommitted()) is not None}
        if self._member is None or not commits:
            return
        offsets = {part: offset for part, (offset, _) in commits.items()}
        try:
            await self._member.commit(offsets, {part: note for part, (_, note) in commits.items() if note})
        except BusUnavailable as error:
            log.warning("%s: not committed: %s", self.stage.name, error)
            return
        for part, commit in commits.items():
            if part in self._holdings:
                self._holdings[part].committed = commit

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
        if self.stage.journal is None and self.stage.folding is None:
            holding.begin(Marks())
            holding.open()
        else:
            holding.own(self._tasks.create_task(self._take_over(holding)))

    async def _take_over(self, holding: Holding) -> None:
        await self._entered.wait()
        assert self._member is not None
        for record in holding.begin(await self._takeover.note(self._member, holding.part)):
            self._take(record)
        await self._takeover.open(holding)
        self._working.open(holding)

    async def _finish_work(self) -> None:
        """Let the work in hand come to its end, for as long as a drain may take; give up the rest.

        A folding stage's turns are left where they are: what would end them may never come.
        """
        holdings, folding = self._holdings.values(), self.stage.folding is not None
        tasks = {task for holding in holdings if holding.opened.is_set() for task in holding.tasks}
        if tasks and not folding:
            await asyncio.wait(tasks, timeout=self._settings.drain)
        jobs = [job for holding in holdings for job in holding.unsure(running=folding)]
        await asyncio.gather(*(job.resolved(self._settings.drain) for job in jobs))
        await asyncio.sleep(0)  # for what waits to hear of it
        for holding in holdings:
            holding.abandon()
        leftovers = {task for holding in holdings for task in holding.tasks}
        if leftovers:
            await asyncio.wait(leftovers, timeout=5.0)
