"""The small HTTP server beside a stage: `/livez`, `/readyz` and `/metrics`. Knows no stage and no bus."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.errors import AddressInUse

READY = "ready"


class Health:
    """What a program is doing: `state` says in a few words what it waits for, and is `READY` once it serves.

    `working` is set once a stop has to wait for work in hand; `doubt` says why a ready program cannot serve just now.
    """

    def __init__(self, state: str = "starting") -> None:
        self.state = state
        self.working = False
        self.doubt: Callable[[], str] = lambda: ""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def begin(self) -> None:
        """It serves from now on."""
        self.state = READY
        self.working = True

    def problem(self) -> str:
        """Why the program does not serve; nothing if it does."""
        return self.doubt() if self.state == READY else self.state

    def app(self) -> Starlette:
        """The three routes. Alive is who answers; ready is who serves."""

        def livez(_: Request) -> Response:
            return PlainTextResponse("alive\n")

        def readyz(_: Request) -> Response:
            problem = self.problem()
            return PlainTextResponse(f"{problem or READY}\n", 503 if problem else 200)

        def metrics(_: Request) -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


class _Server(uvicorn.Server):
    """A server that leaves the signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int) -> AsyncGenerator[None, None]:
    """Serve `app` meanwhile; port 0 means not at all.

    Raises:
        AddressInUse: another program listens there.
    """
    if port == 0:
        yield
        return
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    with listening(host, port) as taken:
        running = asyncio.ensure_future(server.serve(sockets=[taken]))
        try:
            yield
        finally:
            server.should_exit = True
            await running


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on the address.

    Raises:
        AddressInUse: another program does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port) from error
        raise
