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
from apps.gateway.pages import Headers, Ready, StaticMount, http_routes, shared_paths, static_routes
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
            *http_routes(hub, bus, models, ready, registry),
            *static_routes(static),
        ],
        middleware=[Middleware(Headers, shared=shared_paths(static))],
        lifespan=lambda _: _running(hub),
    )
    app.state.hub = hub
    return app


@asynccontextmanager
async def _running(hub: Hub) -> AsyncGenerator[None, None]:
    """The hub at work; should it fail, so does whoever is inside."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(hub.run())
        yield
        working.cancel()
