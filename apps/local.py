"""The whole pipe in one process: the gateway and the three stages on the memory bus.

The same stages, messages and gateway as over Kafka; only the bus differs. The gateway listens at once and says that it
is not ready until the model is loaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from apps.gateway.asgi import StaticMount, create_app
from apps.gateway.serve import serve as serve_app
from apps.gateway.settings import GatewaySettings, TokenSettings
from apps.health import Health
from apps.parts import NAMES, Parts, loaded, on_disk, served_name
from apps.progress import progress
from apps.settings import Settings
from apps.speaking import NONE as MUTE
from apps.speaking import loaded_speak
from apps.speech import NONE, hearing, load_ears
from apps.worker import connected, cut_short, running
from pipeline.bus import Bus
from pipeline.memory import MemoryBus
from pipeline.secret import NO_SECRET
from pipeline.stage import Stage

log = logging.getLogger(__name__)

POLL_S = 0.01
PAGES = Path(__file__).parent / "chat" / "static"
VOICE_PAGE = Path(__file__).parent / "voice" / "static"


class Gateway(NamedTuple):
    """A gateway that listens on `address` (host:port).

    `reads` returns once it reads the replies, and so lets clients in; `drain` ends it when their turns are over.
    """

    address: str
    reads: Callable[[], Awaitable[None]]
    drain: Callable[[], Awaitable[None]]


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve everything until `stop`.

    The log ends with this process, so there is no secret: nobody could go on elsewhere, and turns are let end.

    Raises:
        AddressInUse: another program listens there.
        ModelLoadError: the model cannot be loaded.
    """
    hears, speaks = settings.asr.model != NONE, settings.speak.engine != MUTE
    audio = replace(settings.gateway.audio, hears=hears, speaks=speaks)
    settings = replace(settings, gateway=replace(settings.gateway, secret=NO_SECRET, audio=audio))
    health = Health("loading the model")
    model = served_name(settings.model)
    async with MemoryBus() as bus, listening(bus, settings, health, model) as gateway:
        await cut_short(stop, health, _serve(bus, gateway, settings, stop, health))


async def _serve(bus: Bus, gateway: Gateway, settings: Settings, stop: asyncio.Event, health: Health) -> None:
    async with AsyncExitStack() as stack:
        with progress(f"loading {settings.model.name or 'the demo model'}") as tell:
            async with asyncio.TaskGroup() as tasks:
                ears = tasks.create_task(load_ears(settings.asr, needed=bool(settings.asr.model)))
                parts = await stack.enter_async_context(
                    loaded(on_disk(settings.model), tell=tell, registry=health.registry)
                )
            speech = await stack.enter_async_context(hearing(ears.result(), settings.asr, health.registry))
            stages = [parts.stage(name, settings.stage) for name in NAMES] + [speech.stage(settings.stage)]
            if settings.speak.engine != MUTE:
                speak = await stack.enter_async_context(loaded_speak(settings.speak, health.registry))
                stages.append(speak.stage(settings.stage))
        health.doubt = parts.problem
        async with running(stages, bus, settings, health):
            announce(gateway.address, parts.name, settings.gateway)
            await stop.wait()
            await gateway.drain()


async def serve_gateway(settings: Settings, stop: asyncio.Event) -> None:
    """Serve clients over Kafka until `stop`; the stages run elsewhere.

    Raises:
        AddressInUse: another program listens there.
        BusUnavailable: Kafka did not answer within `stage.wait_s`.
    """
    health = Health("waiting for Kafka")
    model = served_name(settings.model)
    if not settings.gateway.secret:
        log.warning("there is no gateway.secret, so that clients can come back to this very process alone")

    async def work() -> None:
        async with connected(settings) as bus, listening(bus, settings, health, model) as gateway:
            health.begin()
            announce(gateway.address, model, settings.gateway)
            await stop.wait()
            await gateway.drain()

    await cut_short(stop, health, work())


@asynccontextmanager
async def listening(bus: Bus, settings: Settings, health: Health, model: str) -> AsyncGenerator[Gateway, None]:
    """A gateway on `bus` meanwhile, whose stages serve `model`."""
    problem = health.problem

    async def ready() -> dict[str, str]:
        return {"stages": problem()} if problem() else {}

    app = create_app(
        bus,
        settings.gateway,
        models=(model,),
        ready=ready,
        static=[StaticMount(VOICE_PAGE, "/voice"), StaticMount(PAGES)],
        registry=health.registry,
    )
    stop = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            serve_app(app, settings.gateway, stop=stop, started=lambda host, port: address.set_result(f"{host}:{port}"))
        )

        async def drain() -> None:
            stop.set()
            await asyncio.wait([serving])

        async def reads() -> None:
            while app.state.hub.problem:  # noqa: ASYNC110 - a few times, at the start
                await asyncio.sleep(POLL_S)

        try:
            yield Gateway(await address, reads, drain)
        finally:
            stop.set()


@asynccontextmanager
async def piped(bus: Bus, parts: Parts, settings: Settings) -> AsyncGenerator[str, None]:
    """Gateway and stages on `bus` meanwhile, on a free port; gives its address for WebSockets."""
    stages = [parts.stage(name, settings.stage) for name in NAMES]
    async with served_here(bus, stages, settings, parts.name) as url:
        yield url


@asynccontextmanager
async def served_here(bus: Bus, stages: Sequence[Stage], settings: Settings, model: str) -> AsyncGenerator[str, None]:
    """The same with these `stages`, which serve `model`."""
    ours = replace(settings.gateway, host="127.0.0.1", port=0, keys_file=None, jwt=TokenSettings())
    settings = replace(settings, gateway=replace(ours, tls_cert=None, tls_key=None))
    health = Health()
    async with listening(bus, settings, health, model) as gateway, running(stages, bus, settings, health):
        await gateway.reads()
        yield f"ws://{gateway.address}"
        await gateway.drain()


def announce(address: str, model: str, settings: GatewaySettings) -> None:
    """Say where to look."""
    console = Console()
    tls = "s" if settings.tls_cert else ""
    rows = {
        "page": f"http{tls}://{address}",
        "voice": f"http{tls}://{address}/voice/  (talk to it)",
        "realtime": f"ws{tls}://{address}/v1/realtime  (any client of the OpenAI Realtime API)",
        "chat": f"websocat ws{tls}://{address}/chat/me  (a line in, tokens out)",
        "terminal": f"penstock chat --url ws{tls}://{address}",
        "health": f"http{tls}://{address}/readyz and /metrics",
    }
    if settings.closed:
        rows["keys"] = "clients need one: `penstock keys add TENANT` makes it, `penstock chat --key` takes it"
        script = f'<script src="http{tls}://{address}/widget.js" data-key="KEY"></script>'
        rows["own page"] = f"{script}  (the page above has no key; allow yours in gateway.origins)"
    console.print(f"\n[bold green]Penstock is up[/] with {model}. Ctrl-C stops it.\n", highlight=False)
    for name, value in rows.items():
        console.print(f"  [bold]{name:<9}[/] {value}", highlight=False, soft_wrap=True)
    console.print()
