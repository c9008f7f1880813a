"""A realtime server for the voice page's tests, and the pages under the gateway's own headers beside it.

Knows nothing of the pipeline. By hand: `python -m tests.apps.voice.fake_realtime 8123`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from apps.gateway.pages import Headers, StaticMount, static_routes
from apps.local import PAGES, VOICE_PAGE
from tests.apps.voice.fake_script import Script
from tests.apps.voice.fake_session import Session


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class FakeRealtime:
    """Serves the pages and `/v1/realtime`, which behaves by its `script`; with a `key` only for those who have it."""

    def __init__(self) -> None:
        self.script = Script()
        self.key = ""
        self.sessions: list[Session] = []
        self.url = ""

    @property
    def session(self) -> Session:
        """The latest session."""
        return self.sessions[-1]

    async def drop(self, code: int = 1012) -> None:
        """Close all connections; the sessions stay."""
        for session in self.sessions:
            socket, session.socket = session.socket, None
            if socket:
                await socket.close(code)

    async def _models(self, request: Request) -> Response:
        known = not self.key or request.headers.get("authorization") == f"Bearer {self.key}"
        return JSONResponse({"data": []}, 200 if known else 401)

    async def _talk(self, socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        if self.key and f"openai-insecure-api-key.{self.key}" not in offered:
            await socket.send_denial_response(JSONResponse({}, 401))
            return
        await socket.accept(subprotocol="realtime")
        session = await self._session(socket)
        with suppress(WebSocketDisconnect):
            while True:
                await session.hear(await socket.receive_json())
        if session.socket is socket:
            session.socket = None

    async def _session(self, socket: WebSocket) -> Session:
        """The session that a connection goes on with, or a new one."""
        wanted = socket.query_params.get("resume")
        for session in self.sessions:
            if session.id == wanted:
                session.socket = socket
                ids = [event["event_id"] for event in session.told]
                for event in session.told[ids.index(socket.query_params["last_event_id"]) + 1 :]:
                    await session.send(event)
                await session.tell("session.updated", session=session.config, resumed=True)
                return session
        session = Session(self.script, self.script.new("sess"), socket)
        self.sessions.append(session)
        await session.tell("session.created", session={"id": session.id, "type": "realtime"})
        return session

    @asynccontextmanager
    async def run(self, port: int = 0) -> AsyncGenerator[FakeRealtime]:
        """Serve until the block ends; `url` tells where."""
        mounts = [StaticMount(VOICE_PAGE, "/voice"), StaticMount(PAGES)]
        routes = [WebSocketRoute("/v1/realtime", self._talk), Route("/v1/models", self._models), *static_routes(mounts)]
        app = Starlette(routes=routes, middleware=[Middleware(Headers, shared=frozenset())])
        config = uvicorn.Config(app, ws="websockets-sansio", log_level=logging.CRITICAL, timeout_graceful_shutdown=1)
        server = _Server(config)
        with socket.create_server(("127.0.0.1", port)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield self
            finally:
                await self.drop()
                self.script.end()
                server.should_exit = True
                await asyncio.wait([serving], timeout=5)


async def main(port: int) -> None:
    """Serve by hand."""
    async with FakeRealtime().run(port) as server:
        sys.stderr.write(f"{server.url}/voice/\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
