"""A realtime server for the widget's tests: real sockets, scripted replies, and the static pages beside them.

Speaks as much of the protocol as a text chat needs. Knows nothing of the pipeline. By hand:
`python -m tests.apps.chat.fake_gateway 8123`, then say "[cut]", "[fail]", "[rate]", "[slow]" or
"[long]" in the chat.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import mimetypes
import re
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

import apps.chat

STATIC = Path(apps.chat.__file__).parent / "static"
POLICY = "default-src 'self'"

HOURS = "We are open Monday to Friday from 9 am to 6 pm and Saturday from 10 am to 4 pm. On Sunday we are closed."
RETURNS = (
    "Returning something is easy. First, open My orders on our website and choose the item you want to return. "
    "Second, print the return label, or ask us to print it in the shop. Third, pack the item and hand it in."
)
RATE = {
    "type": "invalid_request_error",
    "code": "rate_limit_exceeded",
    "message": "Too many requests: try again in 4 s.",
}


@dataclass(frozen=True)
class Reply:
    """How one question is answered. Times are in seconds."""

    text: str = HOURS
    think: float = 0.05
    pause: float = 0.01
    cut_after: int | None = None  # chunks after which the connection is torn down
    error: dict[str, Any] | None = None  # the response fails with this
    refusal: dict[str, Any] | None = None  # there is no response, only this error
    incomplete: str | None = None  # the response ends early for this reason
    holds: Mapping[int, asyncio.Event] = field(default_factory=dict)  # chunk number → what it waits for

    @property
    def chunks(self) -> list[str]:
        """The text as a model would send it: word by word."""
        return re.findall(r"\s*\S+|\s+$", self.text)


def by_words(question: str) -> Reply:
    """The reply of a server that nobody has scripted."""
    special = {
        "[cut]": Reply(RETURNS, pause=0.08, cut_after=9),
        "[fail]": Reply(error={"type": "server_error", "code": "engine_failed", "message": "boom"}),
        "[rate]": Reply(refusal=RATE),
        "[slow]": Reply(RETURNS, think=0.3, pause=0.06),
        "[long]": Reply("\n\n".join([RETURNS] * 8), pause=0.03),
    }
    for word, reply in special.items():
        if word in question:
            return reply
    if "name" in question:
        return Reply("I am Fern, the assistant of Fernhill Outdoor.")
    return Reply(RETURNS if "return" in question else HOURS)


@dataclass
class Session:
    """One connection: what came in, and the response under way."""

    connection: ServerConnection
    number: int
    received: list[dict[str, Any]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Give the client's events of one type."""
        return [event for event in self.received if event["type"] == kind]

    @property
    def items(self) -> list[tuple[str, str]]:
        """(role, text) of each item the client told."""
        told = (event["item"] for event in self.of("conversation.item.create"))
        return [(item["role"], item["content"][0]["text"]) for item in told]

    @property
    def question(self) -> str:
        """The last thing that the user said."""
        return next((text for role, text in reversed(self.items) if role == "user"), "")


class FakeGateway:
    """Serves `STATIC`, `pages` and `/v1/realtime`; replies are taken from `plan`, then from `default`."""

    def __init__(self, default: Callable[[str], Reply] = by_words) -> None:
        self.default = default
        self.plan: deque[Reply] = deque()
        self.sessions: list[Session] = []
        self.pages: dict[str, str] = {}
        self.close_with: tuple[int, str] | None = None  # said to every new connection
        self.deaf = False  # hears, and says nothing any more
        self.url = ""
        self._ids = itertools.count()

    @asynccontextmanager
    async def run(self, port: int = 0) -> AsyncGenerator[FakeGateway]:
        """Serve until the block ends; `url` tells where."""
        async with serve(
            self._talk,
            "127.0.0.1",
            port,
            process_request=self._serve_file,
            select_subprotocol=self._choose,
            close_timeout=0.2,
        ) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self
            self.drop()

    @property
    def elsewhere(self) -> str:
        """Another origin of the same pages, as a browser sees it: a third party's site."""
        return self.url.replace("127.0.0.1", "localhost")

    def drop(self) -> None:
        """Tear down every connection, as a crash would."""
        for session in self.sessions:
            session.connection.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        """Close every connection in good order."""
        for session in self.sessions:
            await session.connection.close(code, reason)

    # -- HTTP

    def _choose(self, _: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol("realtime") if "realtime" in offered else None

    def _serve_file(self, _: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/v1/realtime":
            return None
        if path in self.pages:
            return respond(HTTPStatus.OK, "text/html; charset=utf-8", self.pages[path].encode())
        file = STATIC / ("index.html" if path == "/" else path.lstrip("/"))
        if not file.resolve().is_relative_to(STATIC.resolve()) or not file.is_file():
            return respond(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return respond(HTTPStatus.OK, kind, file.read_bytes(), {"Content-Security-Policy": POLICY})

    # -- the socket

    async def _talk(self, connection: ServerConnection) -> None:
        session = Session(connection, number=len(self.sessions))
        if self.close_with:
            await connection.close(*self.close_with)
            return
        self.sessions.append(session)
        try:
            await self._send(session, "session.created", session={"id": f"sess_{session.number}", "type": "realtime"})
            async for data in connection:
                event = json.loads(data)
                session.received.append(event)
                await self._hear(session, event)
        except ConnectionClosed:
            pass
        finally:
            if session.task:
                session.task.cancel()

    async def _send(self, to: Session, kind: str, /, **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_{next(self._ids)}", **fields}
        with suppress(ConnectionClosed):
            await to.connection.send(json.dumps(event))

    async def _hear(self, session: Session, event: dict[str, Any]) -> None:
        if self.deaf:
            return
        match event["type"]:
            case "conversation.item.create":
                await self._send(session, "conversation.item.added", item=event["item"])
                await self._send(session, "conversation.item.done", item=event["item"])
            case "response.create":
                reply = self.plan.popleft() if self.plan else self.default(session.question)
                session.cancelled.clear()
                session.task = asyncio.create_task(self._reply(session, event, reply))
            case "response.cancel":
                session.cancelled.set()
            case "session.update":
                await self._send(session, "session.updated", session=event["session"])

    async def _reply(self, session: Session, asked: dict[str, Any], reply: Reply) -> None:
        if reply.refusal:
            await self._send(session, "error", error={**reply.refusal, "event_id": asked["event_id"]})
            return
        number = next(self._ids)
        response = {
            "id": f"resp_{number}",
            "status": "in_progress",
            "metadata": asked.get("response", {}).get("metadata"),
        }
        item = {"id": f"msg_{number}", "type": "message", "role": "assistant", "content": []}
        place = {"response_id": response["id"], "item_id": item["id"], "output_index": 0, "content_index": 0}
        await self._send(session, "response.created", response=response)
        await self._send(session, "rate_limits.updated", rate_limits=[])
        if not reply.error:
            await self._stream(session, reply, item, place)
        await self._send(session, "response.done", response={**response, **ending(session, reply)})

    async def _stream(self, session: Session, reply: Reply, item: dict[str, Any], place: dict[str, Any]) -> None:
        await asyncio.sleep(reply.think)
        await self._send(session, "response.output_item.added", item=item, **place)
        await self._send(session, "response.content_part.added", part={"type": "text", "text": ""}, **place)
        said = ""
        for index, chunk in enumerate(reply.chunks):
            await first_of(reply.holds.get(index), session.cancelled)
            if index == reply.cut_after:
                session.connection.transport.abort()
                return
            if session.cancelled.is_set():
                break
            said += chunk
            await self._send(session, "response.output_text.delta", delta=chunk, **place)
            await asyncio.sleep(reply.pause)
        await self._send(session, "response.output_text.done", text=said, **place)


async def first_of(hold: asyncio.Event | None, cancelled: asyncio.Event) -> None:
    """Wait for `hold`, if there is one, unless the response is cancelled before."""
    if hold is None:
        return
    waits = [asyncio.create_task(event.wait()) for event in (hold, cancelled)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def ending(session: Session, reply: Reply) -> dict[str, Any]:
    """The status fields of `response.done`."""
    usage = {"output_tokens": len(reply.chunks), "input_tokens": 1, "total_tokens": len(reply.chunks) + 1}
    if reply.error:
        return {"status": "failed", "status_details": {"type": "failed", "error": reply.error}}
    if session.cancelled.is_set():
        return {"status": "cancelled", "status_details": {"type": "cancelled", "reason": "client_cancelled"}}
    if reply.incomplete:
        return {"status": "incomplete", "status_details": {"type": "incomplete", "reason": reply.incomplete}}
    return {"status": "completed", "status_details": None, "usage": usage}


def respond(status: HTTPStatus, kind: str, body: bytes, more: dict[str, str] | None = None) -> Response:
    """Make an HTTP response with a body."""
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})})
    return Response(status.value, status.phrase, headers, body)


async def main(port: int) -> None:
    """Serve by hand."""
    async with FakeGateway().run(port) as gateway:
        sys.stderr.write(f"{gateway.url}\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
