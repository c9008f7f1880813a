"""One stage against Kafka, or several chained in one process.

Waits for Kafka, loads what the stage needs, takes its share of the partitions, and drains when told to stop. What ends
the loop ends the program: whoever started it decides what comes next.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Protocol

from apps.health import Health, serving
from apps.parts import Parts, check_names, loaded
from apps.progress import progress
from apps.settings import Settings
from pipeline.bus import Bus
from pipeline.errors import BusUnavailable
from pipeline.kafka import KafkaBus
from pipeline.loop import Loop, LoopSettings
from pipeline.stage import Stage
from pipeline.telemetry import Tracing

log = logging.getLogger(__name__)

ATTEMPT_MS = 2_000
RETRY_S = 1.0
JOINED_S = 0.02


class Seat(Protocol):
    """Where a supervised worker has its identity from, and who is told how it is."""

    def began(self, health: Health) -> None:
        """The work has begun; `health` says how it is."""

    async def taken(self, bus: KafkaBus, parts: Parts) -> str:
        """Everything is loaded: the identity, once there is one to take."""

    def serves(self, loops: Sequence[Loop]) -> None:
        """The group has assigned partitions to `loops`."""


async def work(names: Sequence[str], settings: Settings, stop: asyncio.Event, seat: Seat | None = None) -> None:
    """Run the stages called `names` as one, until `stop`; in `seat`, as whom it says and once it says so.

    Raises:
        BusUnavailable: Kafka did not answer within `stage.wait_s`.
        OwnershipLost: another process has taken this one's place.
        TopicMissing: the route is not there.
        ModelLoadError: what the stage needs cannot be loaded.
    """
    health = Health()
    if seat is not None:
        seat.began(health)
    async with serving(health.app(), settings.health.host, settings.health.port):
        await cut_short(stop, health, _work(check_names(names), settings, stop, health, seat))


async def _work(
    names: Sequence[str], settings: Settings, stop: asyncio.Event, health: Health, seat: Seat | None
) -> None:
    title = "+".join(names)
    health.state = "waiting for Kafka"
    async with connected(settings) as bus, AsyncExitStack() as stack:
        health.doubt = lambda: "" if bus.state.up else f"Kafka is lost: {bus.state.why}"
        health.state = "loading the model"
        with progress(f"loading {settings.model.name or 'the demo model'} for {title}") as tell:
            parts = await stack.enter_async_context(loaded(settings.model, with_engine="llm" in names, tell=tell))
        if seat is not None:
            bus.identify(await seat.taken(bus, parts))
        async with running([parts.chained(names, settings.stage)], bus, settings, health) as loops:
            if seat is not None:
                seat.serves(loops)
            await stop.wait()
    log.info("%s: stopped", title)


@asynccontextmanager
async def running(
    stages: Sequence[Stage], bus: Bus, settings: Settings, health: Health
) -> AsyncGenerator[Sequence[Loop], None]:
    """Run `stages` meanwhile, and then until what they have in hand is done; what ends one of them ends all."""
    chosen = LoopSettings(drain=settings.stage.drain_s)
    tracing = Tracing(settings.log.otlp_endpoint or None)
    loops = [Loop(stage, bus, settings=chosen, registry=health.registry, tracing=tracing) for stage in stages]
    collect_rarely()
    health.state = "joining the group"
    async with asyncio.TaskGroup() as tasks:
        for loop in loops:
            tasks.create_task(loop.run())
        while not all(loop.joined for loop in loops):  # noqa: ASYNC110 - a few times, at the start
            await asyncio.sleep(JOINED_S)
        health.begin()
        for loop in loops:
            log.info("%s: ready with %d partitions", loop.stage.name, len(loop.parts))
        yield loops
        health.state = "stopping"
        for loop in loops:
            loop.drain()


def collect_rarely() -> None:
    """Let Python look for cycles less often: it took a fifth of a loop's time, and streams make few."""
    gc.set_threshold(20_000, 20, 20)


async def cut_short(stop: asyncio.Event, health: Health, work: Coroutine[None, None, None]) -> None:
    """Await `work`, which heeds `stop` by itself once it is working; before that, `stop` cancels it."""
    task = asyncio.ensure_future(work)
    asked = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not health.working:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    finally:
        asked.cancel()
        task.cancel()


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[KafkaBus, None]:
    """The bus, once Kafka answers.

    Raises:
        BusUnavailable: it did not within `stage.wait_s`.
    """
    deadline = time.monotonic() + settings.stage.wait_s
    async with AsyncExitStack() as stack:
        while (bus := await _attempt(stack, settings, deadline)) is None:  # noqa: ASYNC110 - each time it is asked anew
            await asyncio.sleep(RETRY_S)
        yield bus


async def _attempt(stack: AsyncExitStack, settings: Settings, deadline: float) -> KafkaBus | None:
    try:
        with _hushed(logging.getLogger("aiokafka")):
            return await stack.enter_async_context(KafkaBus(replace(settings.kafka, start_timeout_ms=ATTEMPT_MS)))
    except BusUnavailable as error:
        left = deadline - time.monotonic()
        if left <= 0:
            raise
        log.warning("%s; waiting %.0f s more", error, left)
        return None


@contextmanager
def _hushed(library: logging.Logger) -> Generator[None, None, None]:
    """Keep a library from telling each of its attempts: we tell what they come to."""
    before = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(before)
