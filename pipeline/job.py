"""One turn on its way through a stage: what came in, what was published, and how it is stopped.

Holds the state of a single turn; `loop.py` decides when it runs and what its failure means.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pipeline.bus import Headers, Record
from pipeline.headers import DEADLINE, PASSED_ON, TENANT
from pipeline.marks import Id
from pipeline.messages import Message
from pipeline.request import NOBODY, Request
from pipeline.stage import StopReason

Finish = Callable[[Id, Sequence[int]], None]
"""(turn, offsets) → these are finished, although the turn is not."""

ALL_PASSED_ON = frozenset(PASSED_ON)


class Stopped(Exception):
    """The turn is to be given up, for `reason`."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Job:
    """A turn in a stage: its records in order, and its outputs with their deliveries.

    `awaited` counts the deliveries of which somebody waits to hear. A folding stage's turn is a `FoldingJob`.
    """

    __slots__ = (
        "_deadline", "_grace", "_interrupted", "_reason", "_task",
        "awaited", "began", "first", "id", "message", "outputs", "recovered",
    )  # fmt: skip

    open = False
    """Whether it is a stream without a deadline."""

    closed = False
    """Whether another message of the turn would be the first of a new job."""

    progress = 0
    """How many messages have been settled so far."""

    def __init__(self, record: Record, message: Message, *, patience: float, grace: float) -> None:
        self.id = (message.session, message.turn)
        self.first = record
        self.message = message
        self.began = 0.0
        self.awaited = 0
        self.outputs: list[tuple[Message, asyncio.Future[int]]] = []
        self.recovered: list[Message] = []
        self._grace = grace
        self._deadline = _deadline(record.headers, patience)
        self._task: asyncio.Task[Any] | None = None
        self._interrupted: Exception | None = None
        self._reason: StopReason = "deadline"

    @property
    def passed_on(self) -> Headers:
        """The headers that everything coming of this turn carries."""
        headers = self.first.headers
        if headers.keys() <= ALL_PASSED_ON:
            return headers
        return {name: headers[name] for name in PASSED_ON if name in headers}

    @property
    def request(self) -> Request:
        """Whose turn it is, and until when."""
        return Request(self.first.headers.get(TENANT) or NOBODY, self._deadline)

    def settle(self, count: int, finish: Finish) -> None:
        """See `FoldingJob.settle`.

        Raises:
            ValueError: the stage is not folding.
        """
        raise ValueError(f"Settled({count}) from a stage that is not folding, whose turns are one message")

    def end(self) -> Sequence[int]:
        """Nothing is left to do; the offsets that are finished with that."""
        return (self.first.offset,)

    def follow(self, delivery: asyncio.Future[int]) -> None:
        """Whether `delivery` fails is seen at the turn's end."""

    def stop(self, reason: StopReason) -> None:
        """Give the turn up, now if it is running, or else as soon as it would."""
        self._reason = reason
        self._deadline = -self._grace
        self._interrupt(Stopped(reason))

    def _interrupt(self, error: Exception) -> None:
        """Let the work end with `error`, if it is running."""
        if self._task is not None and self._interrupted is None:
            self._interrupted = error
            self._task.cancel()

    def watch(self, now: float) -> None:
        """Give the turn up if its time is over at `now` (seconds since 1970). Whoever runs jobs calls this regularly.

        One look at all jobs every so often costs far less than a timer for each.
        """
        if now > self._deadline + self._grace:
            self._interrupt(Stopped(self._reason))

    async def within_time(self, work: Coroutine[None, None, None]) -> None:
        """Await `work`, but no longer than until a `stop`, or the first `watch` after the deadline.

        Does what `asyncio.timeout` does, without a timer: another cancel of the same task stays one.

        Raises:
            Stopped: the turn was stopped, or its time is over.
        """
        if time.time() >= self._deadline + self._grace:
            work.close()
            raise Stopped(self._reason)
        task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        self._begin(task)
        try:
            await work
        except (asyncio.CancelledError, TimeoutError):
            if self._interrupted is None or task.cancelling() > cancels + 1:
                raise
            raise self._interrupted from None
        finally:
            self._task = None
            if self._interrupted is not None:
                task.uncancel()

    def _begin(self, task: asyncio.Task[Any]) -> None:
        self._task, self._interrupted = task, None

    def published(self) -> list[Message]:
        """What stands in the log of what this turn gave so far: all up to the first whose delivery is not sure."""
        standing: list[Message] = list(self.recovered)
        for message, delivery in self.outputs:
            if not stands(delivery):
                break
            standing.append(message)
        return standing

    @property
    def unsure(self) -> list[asyncio.Future[int]]:
        """Deliveries of which it is not known yet whether they stand in the log."""
        return [delivery for _, delivery in self.outputs if not delivery.done()]

    @property
    def written(self) -> bool:
        """Whether all that was published stands in the log."""
        return all(stands(delivery) for _, delivery in self.outputs)

    def forget_unsure(self) -> None:
        """Before another attempt: what is not known to stand in the log is to be said again."""
        self.recovered = self.published()
        self.clear()

    def clear(self) -> None:
        """Forget what was published."""
        self.outputs.clear()

    async def resolved(self, timeout: float = 5.0) -> None:
        """Wait until it is known of all that was published whether it stands in the log, or `timeout` seconds."""
        if pending := self.unsure:
            await asyncio.wait(pending, timeout=timeout)

    async def delivered(self) -> None:
        """Wait until all that was published stands in the log.

        Raises:
            BusUnavailable: something does not.
        """
        for _, delivery in tuple(self.outputs):
            await delivery


def stands(delivery: asyncio.Future[int]) -> bool:
    """Whether what was handed over stands in the log."""
    return delivery.done() and not delivery.cancelled() and delivery.exception() is None


def _deadline(headers: Headers, patience: float) -> float:
    """When the turn must have ended (seconds since 1970): as its gateway says, at most `patience` from now."""
    latest = time.time() + patience
    text = headers.get(DEADLINE)
    if text is None:
        return latest
    try:
        deadline = float(text)
    except ValueError:
        return latest
    return min(deadline, latest) if math.isfinite(deadline) else latest
