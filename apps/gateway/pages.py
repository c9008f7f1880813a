"""Plain HTTP: models, health, metrics, and the headers that every page gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.gateway.hub import Hub
from pipeline.bus import Bus
from pipeline.errors import BusUnavailable

CHECK_TIMEOUT_S = 2.0

Ready = Callable[[], Awaitable[dict[str, str]]]
"""What is not ready, by name, and why; empty if all is."""

Endpoint = Callable[[Request], Awaitable[Response]]
Guard = Callable[[Endpoint], Endpoint]
"""Makes an endpoint one that not everybody may ask."""

POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'self'; form-action 'self'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
SHARED_HEADERS = {"Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*"}


@dataclass(frozen=True)
class StaticMount:
    """Files of `directory` served below `path`; those in `shared` may be loaded by pages from elsewhere."""

    directory: Path
    path: str = "/"
    shared: tuple[str, ...] = ("widget.js",)


def _open(endpoint: Endpoint) -> Endpoint:
    return endpoint


class Headers:
    """Adds the security headers to every HTTP answer; `shared` are the paths that other sites may load."""

    def __init__(self, app: ASGIApp, shared: frozenset[str]) -> None:
        self._app, self._shared = app, shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(PAGE_HEADERS)
                if scope["path"] in self._shared:
                    headers.update(SHARED_HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, with_headers)


def static_routes(mounts: Sequence[StaticMount]) -> list[BaseRoute]:
    """The routes of the pages: those of the first mount whose path fits."""
    return [route for mount in mounts for route in _routes(mount)]


def _routes(mount: StaticMount) -> list[BaseRoute]:
    """The files of a mount; its path without the slash at the end leads to it, for what is linked from there."""
    path = mount.path.rstrip("/")

    async def to_folder(_: Request) -> Response:
        return RedirectResponse(f"{path}/")

    files = Mount(path, StaticFiles(directory=mount.directory, html=True))
    return [Route(path, to_folder), files] if path else [files]


def shared_paths(mounts: Sequence[StaticMount]) -> frozenset[str]:
    """The paths that other sites may load."""
    return frozenset(f"{mount.path.rstrip('/')}/{name}" for mount in mounts for name in mount.shared)


class Guards(NamedTuple):
    """What stands before the routes that not everybody may ask; by default nothing."""

    models: Guard = _open
    metrics: Guard = _open


def http_routes(
    hub: Hub, bus: Bus, models: Sequence[str], ready: Ready | None, registry: CollectorRegistry, guards: Guards
) -> list[BaseRoute]:
    """The routes of the programs' interface."""

    async def list_models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(name) for name in models]})

    async def one_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name in models:
            return JSONResponse(_model(name))
        message = f"model {name!r} is not served here; served: {', '.join(models)}"
        error = {"type": "invalid_request_error", "code": "model_not_found", "message": message, "param": "model"}
        return JSONResponse({"error": error}, 404)

    async def elsewhere(request: Request) -> Response:
        if request.url.path in ("/v1/realtime", "/v1/realtime/"):
            message, status = "connect with a WebSocket", 426
        else:
            message, status = f"there is nothing at {request.method} {request.url.path}", 404
        error = {"type": "invalid_request_error", "code": "unknown_url", "message": message, "param": None}
        return JSONResponse({"error": error}, status)

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        reasons = await problems(hub, bus, ready)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/v1/models", guards.models(list_models)),
        Route("/v1/models/{name:path}", guards.models(one_model)),
        Route("/v1/{path:path}", elsewhere, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", guards.metrics(metrics)),
    ]


async def problems(hub: Hub, bus: Bus, ready: Ready | None) -> dict[str, str]:
    """Why the gateway is not ready, by name; empty if it is."""
    found: dict[str, str] = {}
    if hub.seats.draining:
        found["gateway"] = "shutting down"
    elif hub.problem:
        found["replies"] = hub.problem
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await bus.check()
    except (BusUnavailable, TimeoutError) as error:
        found["bus"] = str(error) or f"no answer in {CHECK_TIMEOUT_S:g} s"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            found |= await ready() if ready else {}
    except TimeoutError:
        found["stages"] = f"no answer in {CHECK_TIMEOUT_S:g} s"
    return found


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "penstock"}
