"""A partition in hand: its window of offsets, its lanes of jobs, its fence and what a former owner had published."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

from pipeline.bus import Part, Record
from pipeline.folding import Backlog
from pipeline.job import Job
from pipeline.journal import Fence, Published
from pipeline.marks import Id, Marks
from pipeline.messages import Message
from pipeline.window import Window

REMEMBERED = 10_000
"""Finished turns that a partition remembers, so that one that comes again is told."""


class Lane:
    """Jobs that must run one after the other: those of one `key`, or the one of a folding stage's turn.

    `jobs` are still to run. `on_the_way` have run, in this order, and it is not yet known of all that they published
    whether it stands in the log; each of them to its end, or not (False). When something of it does not, the lane has
    `failed`: nothing more is published in it until those jobs have been done again.
    """

    __slots__ = ("failed", "holding", "jobs", "key", "on_the_way", "running")

    def __init__(self, holding: Holding, key: object) -> None:
        self.holding = holding
        self.key = key
        self.jobs: deque[Job] = deque()
        self.on_the_way: dict[Job, bool] = {}
        self.failed = False
        self.running = False


class Holding:
    """What a loop knows of one partition that it owns. Dropped as a whole when the partition is lost."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.window = Window()
        self.fence = Fence()
        self.lanes: dict[object, Lane] = {}
        self.jobs: dict[Id, Job] = {}
        self.backlog = Backlog()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.paused = False
        self.given_up = False
        self.committed: tuple[int, str] | None = None
        self.marks = Marks()
        self.early: list[Record] = []
        self.first: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self.opened = asyncio.Event()
        self.noted = False
        self.epoch: int | None = None
        self.published: dict[Id, list[Message]] = {}
        self._finished: OrderedDict[Id, None] = OrderedDict()

    def begin(self, marks: Marks) -> list[Record]:
        """From now on records can be taken; those that came before it was known what a former owner had settled."""
        self.marks, self.noted = marks, True
        early, self.early = self.early, []
        return early

    def open(self, epoch: int | None = None, published: Published | None = None) -> None:
        """Let the work begin, from what a former owner had published."""
        self.epoch = epoch
        self.published = {turn: list(messages) for turn, messages in (published or {}).items()}
        self.opened.set()

    def lane(self, key: object) -> Lane:
        """The lane of `key`."""
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self, key)
        return lane

    def unsure(self, *, running: bool) -> list[Job]:
        """Jobs of which something may be on its way to the log; those that are still `running`, too."""
        jobs = [job for lane in self.lanes.values() for job in lane.on_the_way]
        return [*jobs, *self.jobs.values()] if running else jobs

    def leave(self, lane: Lane) -> None:
        """Forget `lane` if nothing is left in it."""
        if not (lane.running or lane.jobs or lane.on_the_way):
            self.lanes.pop(lane.key, None)

    def own(self, task: asyncio.Task[None]) -> None:
        """Cancel `task` when the partition is lost."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def started(self, record: Record) -> bool:
        """Take `record` in hand; False if it already was, or does not count."""
        if not self.window.start(record.offset):
            return False
        if not self.first.done():
            self.first.set_result(record)
        return True

    def knows(self, turn: Id) -> bool:
        """Whether `turn` has been finished here."""
        return turn in self._finished

    def is_done(self, turn: Id, offset: int) -> bool:
        """Whether a record of `turn` need not be read: it has been finished here, or so far by a former owner."""
        return turn in self._finished or (offset <= self.marks.inherited and self.marks.covers(turn, offset))

    def finish(self, job: Job) -> None:
        """`job` has come to its end. One that was closed for its silence may begin anew."""
        offsets = job.end()
        for offset in offsets:
            self.window.finish(offset)
        if job.open or job.progress:
            self.mark(job.id, offsets)
        if self.jobs.get(job.id) is job:
            del self.jobs[job.id]
        if job.closed:
            return
        self._finished[job.id] = None
        if len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)

    def settle(self, turn: Id, offsets: Sequence[int]) -> None:
        """Be done with the next `offsets` of a turn that goes on."""
        for offset in offsets:
            self.window.finish(offset)
        self.mark(turn, offsets)

    def mark(self, turn: Id, offsets: Sequence[int]) -> None:
        """A new owner shall not begin a stream before the last of `offsets`."""
        if offsets:
            self.marks.settle(turn, offsets[-1])

    def uncommitted(self) -> tuple[int, str] | None:
        """The offset to commit and what to note beside it, if they have moved since the last commit."""
        offset = self.window.committable
        if offset is None:
            return None
        commit = (offset, self.marks.note(offset))
        return commit if commit != self.committed else None

    def abandon(self) -> None:
        """Stop all work on the partition."""
        self.given_up = True
        self.first.cancel()
        for task in list(self.tasks):
            task.cancel()
