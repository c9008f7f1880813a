"""A worker's end of the pipes: it tells how it is, waits for its identity, and dies with its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

from prometheus_client import generate_latest

from apps.health import Health
from apps.parts import Loaded
from apps.settings import Settings
from apps.supervisor.pipes import Sender, lines
from apps.supervisor.words import Beat, Failed, Measure, Metrics, Phase, Take, line, order_of
from apps.worker import work
from pipeline.errors import (
    BusUnavailable,
    ModelLoadError,
    PenstockError,
    SettingsError,
    TopicMismatch,
    TopicMissing,
    UndecodableMessage,
)
from pipeline.kafka import KafkaBus
from pipeline.loop import Loop

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
ORPHANED = 1
STDIN = 0
BEAT_S = 1.0
LOOK_S = 2.0
LAG_S = 2.0
"""How long Kafka may take to tell the lag."""
LASTING = (SettingsError, ModelLoadError, TopicMissing, TopicMismatch)
"""What another start does not mend."""


async def work_supervised(names: Sequence[str], beats: int, settings: Settings, stop: asyncio.Event) -> None:
    """Run the stages called `names` as one, as a worker whose supervisor reads the pipe `beats`.

    Orders come over the standard input; where that ends the supervisor is dead, and this process ends at once: another
    may be about to start one with the same identity.

    Raises:
        PenstockError: what ends the work; the supervisor has been told.
    """
    _die_with_parent()
    async with _tethered(beats, stop) as tether:
        try:
            await work(names, settings, stop, seat=tether)
        except (PenstockError, BaseExceptionGroup) as error:
            tether.fail(error)
            raise
        _leave()


def _leave() -> NoReturn:
    """End at once: all is committed and closed, and a standby gets the identity when this process is gone.

    Taking a process with a model's libraries apart takes Python up to some seconds on a busy machine.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with_parent() -> None:
    """Have the kernel kill this process with its parent (Linux), also where this one cannot look any more.

    A parent that is dead already shows in the pipe that ends.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Tether:
    """A `Seat` at the end of two pipes."""

    def __init__(self, sender: Sender, stop: asyncio.Event) -> None:
        self._sender = sender
        self._stop = stop
        self._identity: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._phase: Phase = "loading"
        self._health = Health()
        self._parts: Loaded | None = None
        self._bus: KafkaBus | None = None
        self._loops: Sequence[Loop] = ()
        self._lag: int | None = None

    # ---- what the worker tells -----------------------------------------------------------------------------------

    def began(self, health: Health) -> None:
        """The work has begun; `health` says how it is."""
        self._health = health

    async def taken(self, bus: KafkaBus, parts: Loaded) -> str:
        """Everything is loaded: the identity, once there is one to take."""
        self._bus, self._parts = bus, parts
        self._health.state = "waiting for an id"
        self._change("warm")
        identity = await self._identity
        self._change("joining")
        return identity

    def serves(self, loops: Sequence[Loop]) -> None:
        """The group has assigned partitions to `loops`."""
        self._loops = loops
        self._change("serving")

    def fail(self, error: BaseException) -> None:
        """The worker ends for this."""
        known = _leaves(error)
        lasting = all(isinstance(one, LASTING) for one in known)
        self._sender.send(line(Failed("; ".join(dict.fromkeys(map(str, known))) or type(error).__name__, lasting)))

    def _change(self, phase: Phase) -> None:
        self._phase = phase
        self._sender.send(line(self._beat()))

    # ---- what the supervisor is told -----------------------------------------------------------------------------

    async def beat(self) -> None:
        """Say regularly how it is."""
        while True:
            if not self._sender.waiting:
                self._sender.send(line(self._beat()))
            await asyncio.sleep(BEAT_S)

    def _beat(self) -> Beat:
        health = self._health
        return Beat(
            "draining" if self._stop.is_set() else self._phase,
            health.problem(),
            parts=tuple(f"{part.topic}-{part.number}" for loop in self._loops for part in sorted(loop.parts)),
            lag=self._lag,
            taken=sum(loop.taken for loop in self._loops),
            in_hand=sum(loop.in_hand for loop in self._loops),
            step_s=self._step_s(),
            listening=sum(loop.listening for loop in self._loops),
        )

    def _step_s(self) -> float:
        since = self._parts.busy_since() if self._parts else None
        return 0.0 if since is None else time.monotonic() - since

    async def look(self) -> None:
        """Ask Kafka for the lag every so often: beside the beats, which must not wait for it."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._loops or self._bus is None:
                continue
            try:
                async with asyncio.timeout(LAG_S):
                    self._lag = await self._bus.lag()
            except (BusUnavailable, TimeoutError):
                self._lag = None

    # ---- what it is told -----------------------------------------------------------------------------------------

    async def obey(self) -> None:
        """Hear the supervisor, to the end of either."""
        async with contextlib.aclosing(lines(os.dup(STDIN))) as orders:
            async for text in orders:
                try:
                    self._obey(text)
                except UndecodableMessage as error:
                    log.warning("%s", error)
        log.error("the supervisor is gone, and this worker with it")
        os._exit(ORPHANED)

    def _obey(self, text: bytes) -> None:
        match order_of(text):
            case Take(identity=identity):
                if not self._identity.done():
                    self._identity.set_result(identity)
            case Measure():
                self._sender.send(line(Metrics(generate_latest(self._health.registry).decode())))


@asynccontextmanager
async def _tethered(beats: int, stop: asyncio.Event) -> AsyncGenerator[Tether, None]:
    tether = Tether(await Sender.on(beats), stop)
    tasks = [asyncio.create_task(helper()) for helper in (tether.beat, tether.look, tether.obey)]
    try:
        yield tether
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]
