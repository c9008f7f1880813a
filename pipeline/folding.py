"""A turn of a folding stage: its messages as they come, those that are settled, and the streams that have no deadline.

Holds the state of a single turn, as `job.py` does for a turn that is one message.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from pipeline.bus import Record
from pipeline.errors import BusUnavailable, NothingSettled, Overloaded
from pipeline.job import Finish, Job, stands
from pipeline.messages import Message
from pipeline.stage import Stage

REFUSED_S = 5.0
"""Seconds after which a stream that found no room may try again."""


class Backlog:
    """How many messages of a partition wait for a folding stage to read them."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class FoldingJob(Job):
    """A turn with several messages, of which `_unread` have not yet been read; `backlog` counts them, too.

    Of those that the stage's present call was given (`_given`), the first `_gone` are settled and not held any more.
    `_marks` are what the call has said to be settled and that is not yet: (outputs before it, messages), both counted
    from the call's start; `_forgotten` outputs are not held any more, and the first `_sure` stand in the log.
    """

    __slots__ = (
        "_arrived", "_backlog", "_ended", "_finish", "_forgotten", "_given", "_gone", "_marks", "_messages",
        "_offsets", "_sure", "_unread", "progress",
    )  # fmt: skip

    def __init__(self, record: Record, message: Message, *, patience: float, grace: float, backlog: Backlog) -> None:
        super().__init__(record, message, patience=patience, grace=grace)
        self._offsets = [record.offset]
        self._messages = [message]
        self._backlog = backlog
        self._unread = 1
        backlog.count += 1
        self._arrived: asyncio.Event | None = None
        self._given = self._gone = self._forgotten = self._sure = 0
        self._ended = False
        self._marks: deque[tuple[int, int]] = deque()
        self._finish: Finish | None = None
        self.progress = 0

    def add(self, record: Record, message: Message) -> None:
        """Another message of the turn."""
        self._offsets.append(record.offset)
        self._messages.append(message)
        self._unread += 1
        self._backlog.count += 1
        if self._arrived is not None:
            self._arrived.set()

    def read(self, last: Callable[[Any], bool]) -> AsyncGenerator[Message, None]:
        """The turn's messages as they come, from the first that is not settled to the one for which `last` is true."""
        self._given = self._gone = 0
        self._ended = False
        self._now_unread(len(self._messages))
        return self._reading(last)

    async def _reading(self, last: Callable[[Any], bool]) -> AsyncGenerator[Message, None]:
        while True:
            while (position := self._given - self._gone) < len(self._messages):
                message = self._messages[position]
                self._given += 1
                self._unread -= 1
                self._backlog.count -= 1
                self._ended = last(message)
                yield message
                if self._ended:
                    return
            if self.closed:
                return
            self._arrived = asyncio.Event()
            await self._arrived.wait()

    def _now_unread(self, count: int) -> None:
        self._backlog.count += count - self._unread
        self._unread = count

    def end(self) -> Sequence[int]:
        """See `Job.end`."""
        self._now_unread(0)
        return self._offsets

    # ---- settling ------------------------------------------------------------------------------------------------

    def settle(self, count: int, finish: Finish) -> None:
        """The first `count` messages of the call are done with, once all that was published so far stands in the log.

        Then `finish` gets their offsets. The turn's last message stays until its end, for who has to begin again. No
        more messages than before: only what was published is let go.

        Raises:
            ValueError: the call has not been given so many.
        """
        if count > self._given:
            raise ValueError(f"Settled({count}) from a stage that was given only {self._given} messages so far")
        if self._ended and count == self._given:
            count -= 1
        said = self._forgotten + len(self.outputs)
        known = self._marks[-1] if self._marks else (self._forgotten, self._gone)
        if count < known[1] or (said, count) == known:
            return
        if self._marks and known[0] == said:
            self._marks[-1] = (said, count)
            return
        self._marks.append((said, count))
        self._finish = finish
        if len(self._marks) == 1:
            self._advance()

    def _advance(self, _: object = None) -> None:
        """Settle what need not wait any more. What is not in the log for good, another call has to say again."""
        while self._marks:
            said, count = self._marks[0]
            while self._sure < said:
                delivery = self.outputs[self._sure - self._forgotten][1]
                if not delivery.done():
                    delivery.add_done_callback(self._advance)
                    return
                if not stands(delivery):
                    return
                self._sure += 1
            self._marks.popleft()
            self._forget(said, count - self._gone)

    def _forget(self, said: int, messages: int) -> None:
        """Let go of the next `messages`, and of the outputs before number `said`; if of those alone, keep the last."""
        assert self._finish is not None
        self.recovered = [] if messages else [self.outputs[said - self._forgotten - 1][0]]
        self._finish(self.id, self._offsets[:messages])
        del self._offsets[:messages], self._messages[:messages], self.outputs[: said - self._forgotten]
        self._forgotten = said
        self._gone += messages
        self.progress += messages

    def forget_unsure(self) -> None:
        """See `Job.forget_unsure`."""
        self._advance()
        super().forget_unsure()

    def clear(self) -> None:
        """See `Job.clear`."""
        super().clear()
        self._marks.clear()
        self._forgotten = self._sure = 0


class OpenJob(FoldingJob):
    """A stream without a deadline, of which a failed delivery is noticed at once: nobody could wait for its end.

    It is closed, and its messages end, when none has come for `stage.idle_s` seconds; it has failed when more than
    `stage.unsettled` bytes of it have been read and not settled. It is refused if there are as many `others` as may be.
    """

    __slots__ = ("_heard", "_held", "_others", "_sizes", "_stage", "closed")

    open = True

    def __init__(self, record: Record, message: Message, *, stage: Stage, backlog: Backlog, others: int) -> None:
        super().__init__(record, message, patience=math.inf, grace=stage.grace, backlog=backlog)
        self._deadline = math.inf
        self._stage = stage
        self._others = others
        self._held = len(record.value)
        self._sizes = [self._held]
        self._heard = time.time()
        self.closed = False

    def add(self, record: Record, message: Message) -> None:
        """See `FoldingJob.add`."""
        self._held += len(record.value)
        self._sizes.append(len(record.value))
        self._heard = time.time()
        super().add(record, message)

    def _forget(self, said: int, messages: int) -> None:
        self._held -= sum(self._sizes[:messages])
        del self._sizes[:messages]
        super()._forget(said, messages)

    def watch(self, now: float) -> None:
        """See `Job.watch`; also close it if it has been silent for too long, and end it if it holds too much."""
        super().watch(now)
        assert self._stage.idle_s is not None
        if not self._unread and now - self._heard >= self._stage.idle_s:
            self._close()
        if self._held > self._stage.unsettled:
            self._check_bound()

    def _close(self) -> None:
        """Take no more messages, and let the stage see the end of those that there are."""
        self.closed = True
        if self._arrived is not None:
            self._arrived.set()

    def _check_bound(self) -> None:
        read = sum(self._sizes[: self._given - self._gone])
        if read > self._stage.unsettled:
            self._interrupt(NothingSettled(self._stage.name, read=read, limit=self._stage.unsettled))

    async def within_time(self, work: Coroutine[Any, Any, None]) -> None:
        """See `Job.within_time`.

        Raises:
            Overloaded: it was refused.
        """
        if self._others >= self._stage.concurrency:
            work.close()
            why = f"{self._others} streams are open in stage {self._stage.name!r}, as many as it takes"
            raise Overloaded(why, retry_after=REFUSED_S)
        await super().within_time(work)

    def follow(self, delivery: asyncio.Future[int]) -> None:
        """See `Job.follow`: begin again from what is settled, for the stage may say nothing more for hours."""
        if not stands(delivery):
            delivery.add_done_callback(self._hear)

    def _hear(self, delivery: asyncio.Future[int]) -> None:
        if stands(delivery):
            return
        error = None if delivery.cancelled() else delivery.exception()
        self._interrupt(error if isinstance(error, Exception) else BusUnavailable("the log", "a delivery was cut off"))


def folding_job(
    stage: Stage, record: Record, message: Message, backlog: Backlog, patience: float, others: int
) -> FoldingJob:
    """A turn of `stage` that begins with `record`, where `others` are in hand."""
    if stage.idle_s is None:
        return FoldingJob(record, message, patience=patience, grace=stage.grace, backlog=backlog)
    return OpenJob(record, message, stage=stage, backlog=backlog, others=others)
