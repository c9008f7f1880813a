"""One turn on its way through a stage: what came in, what was published, and how it is stopped.

Holds the state of a single turn; `loop.py` decides when it runs and what its failure means.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from pipeline.bus import Headers, Record
from pipeline.headers import DEADLINE, PASSED_ON, TENANT
from pipeline.messages import Message
from pipeline.request import NOBODY, Request
from pipeline.stage import StopReason

ALL_PASSED_ON = frozenset(PASSED_ON)


class Stopped(Exception):
    """The turn is to be given up, for `reason`."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Job:
    """A turn in a stage: its records in order, and its outputs with their deliveries.

    A folding stage's turn has several messages, of which `unread` have not yet been read. `awaited` counts the
    deliveries of which somebody waits to hear.
    """

    __slots__ = (
        "_arrived", "_deadline", "_grace", "_interrupted", "_reason", "_task",
        "awaited", "began", "first", "id", "message", "messages", "offsets", "outputs", "recovered", "unread",
    )  # fmt: skip

    def __init__(self, record: Record, message: Message, *, patience: float, grace: float) -> None:
        self.id = (message.session, message.turn)
        self.first = record
        self.message = message
        self.offsets = [record.offset]
        self.messages = [message]
        self.unread = 1
        self._arrived: asyncio.Event | None = None
        self.began = 0.0
        self.awaited = 0
        self.outputs: list[tuple[Message, asyncio.Future[int]]] = []
        self.recovered: list[Message] = []
        self._grace = grace
        self._deadline = _deadline(record.headers, patience)
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False
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

    def add(self, record: Record, message: Message) -> None:
        """Another message of a folding stage's turn."""
        self.offsets.append(record.offset)
        self.messages.append(message)
        self.unread += 1
        if self._arrived is not None:
            self._arrived.set()

    async def read(self, last: Any) -> AsyncGenerator[Message, None]:
        """The turn's messages as they come, up to the one for which `last` is true."""
        position = 0
        while True:
            while position < len(self.messages):
                message = self.messages[position]
                position += 1
                self.unread = len(self.messages) - position
                yield message
                if last(message):
                    return
            self._arrived = asyncio.Event()
            await self._arrived.wait()

    def stop(self, reason: StopReason) -> None:
        """Give the turn up, now if it is running, or else as soon as it would."""
        self._reason = reason
        self._deadline = -self._grace
        self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def watch(self, now: float) -> None:
        """Give the turn up if its time is over at `now` (seconds since 1970). Whoever runs jobs calls this regularly.

        One look at all jobs every so often costs far less than a timer for each.
        """
        if now > self._deadline + self._grace:
            self._interrupt()

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
        self._task, self._interrupted = task, False
        try:
            await work
        except (asyncio.CancelledError, TimeoutError):
            if not self._interrupted or task.cancelling() > cancels + 1:
                raise
            raise Stopped(self._reason) from None
        finally:
            self._task = None
            if self._interrupted:
                task.uncancel()

    def published(self) -> list[Message]:
        """What stands in the log of what this turn gave so far: all up to the first whose delivery is not sure."""
        standing: list[Message] = list(self.recovered)
        for message, delivery in self.outputs:
            if not _stands(delivery):
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
        return all(_stands(delivery) for _, delivery in self.outputs)

    def forget_unsure(self) -> None:
        """Before another attempt: what is not known to stand in the log is to be said again."""
        self.recovered = self.published()
        self.outputs.clear()

    async def settled(self, timeout: float = 5.0) -> None:
        """Wait until it is known of all that was published whether it stands in the log, or `timeout` seconds."""
        if pending := self.unsure:
            await asyncio.wait(pending, timeout=timeout)

    async def delivered(self) -> None:
        """Wait until all that was published stands in the log.

        Raises:
            BusUnavailable: something does not.
        """
        for _, delivery in self.outputs:
            await delivery


def _stands(delivery: asyncio.Future[int]) -> bool:
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
