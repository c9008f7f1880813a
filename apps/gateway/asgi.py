"""The gateway as one ASGI application: the sockets, the HTTP interface and the pages share one port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute

from apps.gateway.door import Door
from apps.gateway.hub import Hub
from apps.gateway.limits import Limits
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.pages import Guards, Headers, Ready, StaticMount, http_routes, shared_paths, static_routes
from apps.gateway.settings import GatewaySettings
from apps.gateway.sockets import Sockets
from pipeline.bus import Bus

__all__ = ["Ready", "StaticMount", "create_app"]


def create_app(
    bus: Bus,
    settings: GatewaySettings,
    *,
    models: tuple[str, ...],
    ready: Ready | None = None,
    static: Sequence[StaticMount] = (),
    registry: CollectorRegistry,
) -> Starlette:
    """The application; it works while its lifespan lasts (`serve` sees to that).

    Args:
        bus: where the log is.
        settings: the limits.
        models: the names that are served; the first one also answers to `default`.
        ready: what besides the bus must be ready, see `Ready`.
        static: the pages.
        registry: where the metrics are, ours and those of whoever shares the process.

    Raises:
        SettingsError: the keys, or what checks tokens, cannot be read.
    """
    metrics = GatewayMetrics(registry)
    hub = Hub(bus, settings, metrics)
    limits = Limits(settings)
    door = Door(settings, limits)
    sockets = Sockets(hub, door, limits, settings, metrics, models)
    app = Starlette(
        routes=[
            WebSocketRoute("/v1/realtime", sockets.realtime),
            WebSocketRoute("/chat/{session:path}", sockets.chat),
            WebSocketRoute("/{path:path}", sockets.nowhere),
            *http_routes(hub, bus, models, ready, registry, _guards(door, settings)),
            *static_routes(static),
        ],
        middleware=[Middleware(Headers, shared=shared_paths(static))],
        lifespan=lambda _: _running(hub, door),
    )
    app.state.hub = hub
    return app


def _guards(door: Door, settings: GatewaySettings) -> Guards:
    """Where a key is wanted, the models need one, and the metrics unless they are set open."""
    if not settings.closed:
        return Guards()
    return Guards(models=door.guarded) if settings.metrics_open else Guards(door.guarded, door.guarded)


@asynccontextmanager
async def _running(hub: Hub, door: Door) -> AsyncGenerator[None, None]:
    """The hub at work; should it fail, so does whoever is inside."""
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(hub.run()), tasks.create_task(door.run())]
        yield
        for task in working:
            task.cancel()
