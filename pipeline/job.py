"""One turn on its way through a stage: what came in, what was published, and how it is stopped.

Holds the state of a single turn; `loop.py` decides when it runs and what its failure means.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any

from pipeline.bus import Headers, Record
from pipeline.headers import DEADLINE, PASSED_ON
from pipeline.messages import Message
from pipeline.stage import StopReason


class Stopped(Exception):
    """The turn is to be given up, for `reason`."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Job:
    """A turn in a stage: its records in order, and its outputs with their deliveries.

    A folding stage's turn has several messages, of which `unread` have not yet been read.
    """

    def __init__(self, record: Record, message: Message, *, patience: float, grace: float) -> None:
        self.first = record
        self.message = message
        self.offsets = [record.offset]
        self.messages = [message]
        self.unread = 1
        self.arrived = asyncio.Event()
        self.outputs: list[tuple[Message, asyncio.Future[int]]] = []
        self.recovered: list[Message] = []
        self._grace = grace
        self._deadline = _deadline(record.headers, patience)
        self._scope: asyncio.Timeout | None = None
        self._reason: StopReason = "deadline"

    @property
    def id(self) -> tuple[str, str]:
        """(session, turn)."""
        return self.message.session, self.message.turn

    @property
    def passed_on(self) -> Headers:
        """The headers that everything coming of this turn carries."""
        headers = self.first.headers
        return {name: headers[name] for name in PASSED_ON if name in headers}

    def add(self, record: Record, message: Message) -> None:
        """Another message of a folding stage's turn."""
        self.offsets.append(record.offset)
        self.messages.append(message)
        self.unread += 1
        self.arrived.set()

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
            self.arrived.clear()
            await self.arrived.wait()

    def stop(self, reason: StopReason) -> None:
        """Give the turn up, now if it is running, or else as soon as it would."""
        self._reason = reason
        self._deadline = -self._grace
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    @contextmanager
    def _running(self, scope: asyncio.Timeout) -> Generator[None, None, None]:
        self._scope = scope
        try:
            yield
        finally:
            self._scope = None

    async def within_time(self, work: Any) -> None:
        """Await `work`, a coroutine function, but no longer than until the deadline or a `stop`.

        Raises:
            Stopped: the turn was stopped, or its time is over.
        """
        left = self._deadline + self._grace - time.time()
        if left <= 0:
            raise Stopped(self._reason)
        scope = asyncio.timeout(left)
        try:
            async with scope:
                with self._running(scope):
                    await work()
        except TimeoutError:
            if not scope.expired():
                raise
            raise Stopped(self._reason) from None

    def published(self) -> list[Message]:
        """What stands in the log of what this turn gave so far: all up to the first whose delivery is not sure."""
        standing: list[Message] = list(self.recovered)
        for message, delivery in self.outputs:
            if not delivery.done() or delivery.cancelled() or delivery.exception() is not None:
                break
            standing.append(message)
        return standing

    def forget_unsure(self) -> None:
        """Before another attempt: what is not known to stand in the log is to be said again."""
        self.recovered = self.published()
        self.outputs.clear()

    async def settled(self, timeout: float = 5.0) -> None:
        """Wait until it is known of all that was published whether it stands in the log, or `timeout` seconds."""
        pending = [delivery for _, delivery in self.outputs if not delivery.done()]
        if pending:
            await asyncio.wait(pending, timeout=timeout)

    async def delivered(self) -> None:
        """Wait until all that was published stands in the log.

        Raises:
            BusUnavailable: something does not.
        """
        for _, delivery in self.outputs:
            await delivery


def _deadline(headers: Headers, patience: float) -> float:
    """When the turn must have ended (seconds since 1970): as its gateway says, at most `patience` from now."""
    latest = time.time() + patience
    try:
        deadline = float(headers[DEADLINE])
    except (KeyError, ValueError):
        return latest
    return min(deadline, latest) if math.isfinite(deadline) else latest
