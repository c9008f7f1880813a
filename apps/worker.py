"""One stage against Kafka, or several chained in one process.

Waits for Kafka, loads what the stage needs, takes its share of the partitions, and drains when told to stop. A Kafka
that is lost before that share is there is waited for anew. What ends the loop later ends the program: whoever started
it decides what comes next.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

from apps.health import Health, serving
from apps.parts import Loaded, check_names, loaded_for
from apps.progress import progress
from apps.settings import Settings
from apps.speaking import SPEAK
from apps.speech import SPEECH
from apps.task_metrics import TaskCollector
from pipeline.bus import Bus
from pipeline.errors import BusUnavailable
from pipeline.kafka import KafkaBus
from pipeline.loop import Loop, LoopSettings
from pipeline.stage import Stage
from pipeline.telemetry import Tracing
from pipeline.topics import ROUTE

log = logging.getLogger(__name__)

WAITING = "waiting for Kafka"
ATTEMPT_MS = 2_000
RETRY_S = 1.0
REJOIN_S = 3.0
JOINED_S = 0.02


class Seat(Protocol):
    """Where a supervised worker has its identity from, and who is told how it is."""

    def began(self, health: Health) -> None:
        """The work has begun; `health` says how it is."""

    async def taken(self, bus: KafkaBus, parts: Loaded) -> str:
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
    health.state = WAITING
    async with connected(settings) as bus, AsyncExitStack() as stack:
        health.doubt = lambda: "" if bus.state.up else f"Kafka is lost: {bus.state.why}"
        health.state = "loading the model"
        with progress(f"loading {_what(names, settings)} for {title}") as tell:
            loading = loaded_for(names, settings, tell=tell, registry=health.registry)
            parts = await stack.enter_async_context(loading)
        health.doubt = lambda: parts.problem() if bus.state.up else f"Kafka is lost: {bus.state.why}"
        await bus.prepare([topic.name for topic in ROUTE])
        if seat is not None:
            bus.identify(await seat.taken(bus, parts))
        async with running([parts.chained(names, settings.stage)], bus, settings, health) as loops:
            if seat is not None:
                seat.serves(loops)
            await stop.wait()
    log.info("%s: stopped", title)


def _what(names: Sequence[str], settings: Settings) -> str:
    """What the stages called `names` load."""
    if SPEAK in names:
        return settings.speak.voice or settings.speak.engine
    return (settings.asr.model if SPEECH in names else settings.model.name) or "the demo model"


@asynccontextmanager
async def running(
    stages: Sequence[Stage], bus: Bus, settings: Settings, health: Health
) -> AsyncGenerator[Sequence[Loop], None]:
    """Run `stages` meanwhile, and then until what they have in hand is done; what ends one of them ends all."""
    chosen = LoopSettings(drain=settings.stage.drain_s)
    tracing = Tracing(settings.log.otlp_endpoint or None)

    def begun(stage: Stage) -> Loop:
        return Loop(stage, bus, settings=chosen, registry=health.registry, tracing=tracing)

    joiners = [Joiner(partial(begun, stage), health, settings.stage.wait_s) for stage in stages]
    collect_rarely()
    health.registry.register(TaskCollector(asyncio.get_running_loop()))
    health.state = "joining the group"
    async with asyncio.TaskGroup() as tasks:
        for joiner in joiners:
            tasks.create_task(joiner.run())
        while not all(joiner.loop.joined for joiner in joiners):  # noqa: ASYNC110 - a few times, at the start
            await asyncio.sleep(JOINED_S)
        loops = [joiner.loop for joiner in joiners]
        health.begin()
        for loop in loops:
            log.info("%s: ready with %d partitions", loop.stage.name, len(loop.parts))
        yield loops
        health.state = "stopping"
        for loop in loops:
            loop.drain()


class Joiner:
    """Runs a loop, and until it has joined its group begins it anew while Kafka is away; later it helps itself."""

    def __init__(self, begun: Callable[[], Loop], health: Health, wait_s: float) -> None:
        self._begun, self._health, self._wait_s = begun, health, wait_s
        self.loop = begun()

    async def run(self) -> None:
        """Work until drained.

        Raises:
            BusUnavailable: Kafka was lost before the group was joined, and did not answer within `wait_s`.
        """
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                return await self.loop.run()
            except BusUnavailable as error:
                if self.loop.joined:
                    raise
                tell_of_wait(error, deadline)
                self._health.state = WAITING
            await asyncio.sleep(REJOIN_S)
            self.loop = self._begun()


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
    """A bus with the patience that was set, once a short attempt has shown that Kafka answers."""
    try:
        with _hushed(logging.getLogger("aiokafka")):
            async with KafkaBus(replace(settings.kafka, start_timeout_ms=ATTEMPT_MS)):
                pass
            return await stack.enter_async_context(KafkaBus(settings.kafka))
    except BusUnavailable as error:
        tell_of_wait(error, deadline)
        return None


def tell_of_wait(error: BusUnavailable, deadline: float) -> None:
    """Say what is waited for and how long, or raise `error` where that is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise error
    log.warning("%s; waiting %.0f s more", error, left)


@contextmanager
def _hushed(library: logging.Logger) -> Generator[None, None, None]:
    """Keep a library from telling each of its attempts: we tell what they come to."""
    before = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(before)
