"""One live socket: frames in order to the session, events in order to the client, each way bounded."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from apps.gateway.commands import AudioAppend, Command
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.protocols.realtime import Unreadable
from apps.gateway.refusal import Refusal
from apps.gateway.session import Session
from apps.gateway.settings import GatewaySettings

GOING_AWAY = 1001
TOO_MUCH = 1008
FAILED = 1011
RESTART = 1012
TRY_LATER = 1013
REPLACED = 4409
"""The same session was opened anew elsewhere; not to be reopened by itself."""
NOT_RESUMED = 4410
"""The session cannot go on where the client left it; a new one can be opened at once."""

EXPIRED = "session_expired"
CLOSE_TIMEOUT_S = 2.0
HELD_S = 10.0
"""Seconds that an event waits for the audio before it. A ping waits behind it, and some clients (Python's) close their
socket after 20 s without an answer."""


class Codec(Protocol):
    """What a client speaks."""

    name: str
    resumable: bool
    """Whether the client learns where it stands, so that it can come back to there."""

    def receive(self, frame: str | bytes) -> Command:
        """The command in a frame."""

    def frames(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """The frames for events."""

    def complaint(self, refusal: Refusal, event_id: str | None = None) -> list[str]:
        """What to send directly."""


class Close(NamedTuple):
    """The end of a connection."""

    code: int
    reason: str


class Connection:
    """The socket of `session`'s client.

    `take` counts an event against the client's rate; `pump` hands to the log what the session has to say, and waits
    while the log is behind.
    """

    def __init__(
        self,
        websocket: WebSocket,
        session: Session,
        codec: Codec,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        *,
        take: Callable[[], Refusal | None],
        pump: Callable[[], Awaitable[None]],
    ) -> None:
        self._websocket, self._session, self._codec = websocket, session, codec
        self._settings, self._metrics = settings, metrics
        self._take, self._pump = take, pump
        self._missed: deque[str] = deque()
        self._queue: deque[str | Close] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._last_id, self._asides = "", 0
        self.closing: Close | None = None
        self.opened_at = self.heard_at = time.monotonic()
        self.closed_with = Close(1006, "")

    @property
    def resumable(self) -> bool:
        """Whether the client can come back to where it stands."""
        return self._codec.resumable

    def deliver(self, events: list[dict[str, Any]]) -> None:
        """Send events to the client, as soon as it takes them."""
        self._send_soon(self._frames(events))
        if any(event["type"] == "error" and event["error"]["code"] == EXPIRED for event in events):
            self.close(GOING_AWAY, EXPIRED)

    def catch_up(self, events: list[dict[str, Any]]) -> None:
        """Send first what the client has missed, however much that is, as fast as it takes it.

        An end among that was an earlier connection's.
        """
        self._missed.extend(self._frames(events))

    def _frames(self, events: list[dict[str, Any]]) -> list[str]:
        for event in events:
            self._metrics.events_out.labels(event["type"]).inc()
        if events:
            self._last_id, self._asides = events[-1]["event_id"], 0
        return self._codec.frames(events)

    def _complain(self, refusal: Refusal) -> None:
        """Say something that stands in no log; its id is that of the event before, and how often that was used."""
        self._asides += 1
        event_id = self._session.account.stamp.aside(self._last_id, self._asides) if self._last_id else None
        self._send_soon(self._codec.complaint(refusal, event_id))

    def close(self, code: int, reason: str) -> None:
        """Close the socket, after what is on its way."""
        if self.closing is None:
            self.closing = Close(code, reason)
            self._queue.append(self.closing)
            self._wake.set()

    async def run(self) -> None:
        """Serve the socket until either side closes it."""
        async with asyncio.TaskGroup() as group:
            tasks = {group.create_task(self._receive()), group.create_task(self._send())}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    # -- in

    async def _receive(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self.closed_with = Close(message.get("code", 1005), message.get("reason") or "")
                return
            text = message.get("text")
            self.heard_at = time.monotonic()
            if self.closing is None:
                wait = self._hear(message["bytes"] if text is None else text)
                await self._pump()
                await asyncio.sleep(wait)
                await self._let_flow()

    async def _let_flow(self) -> None:
        """Wait with the next event until all audio has gone on that is under way, but no longer than `HELD_S`."""
        until = time.monotonic() + HELD_S
        while self.closing is None and (wait := self._session.flow(now := time.monotonic())) > 0 and now < until:
            await self._pump()
            await asyncio.sleep(min(wait, until - now))
        await self._pump()

    def _hear(self, frame: str | bytes) -> float:
        """Take a frame; returns the seconds after which to take the next, so that a flood waits with its sender.

        Audio counts by its length instead, see `_let_flow`.
        """
        try:
            command = self._codec.receive(frame)
        except Unreadable as refusal:
            limited = self._take()
            self._metrics.errors.labels(refusal.code).inc()
            self._complain(limited or refusal)
        except Refusal as refusal:
            limited = self._take()
            self._session.refuse(limited.about(refusal.event_id) if limited else refusal)
        else:
            self._metrics.events_in.labels(str(command.__struct_config__.tag)).inc()
            limited = self._obey(command)
        return limited.retry_after or 0.0 if limited else 0.0

    def _obey(self, command: Command) -> Refusal | None:
        """Let the session carry a command out, unless the client sends too many."""
        if isinstance(command, AudioAppend):
            return None if self._session.receive(command) else self._take()
        if limited := self._take():
            self._session.refuse(limited.about(command.event_id))
        else:
            self._session.receive(command)
        return limited

    # -- out

    def _send_soon(self, frames: list[str]) -> None:
        if self.closing is not None:
            return
        self._queue += frames
        self._bytes += sum(map(len, frames))
        if len(self._queue) > self._settings.send_queue_frames or self._bytes > self._settings.send_queue_bytes:
            self._metrics.overflows.inc()
            self._queue.clear()
            self.close(TRY_LATER, "the client reads too slowly")
        self._wake.set()

    async def _send(self) -> None:
        try:
            while True:
                while self._missed:
                    await self._write(self._missed.popleft())
                while self._queue:
                    if await self._sent(self._queue.popleft()):
                        return
                self._wake.clear()
                await self._wake.wait()
        except (WebSocketDisconnect, TimeoutError):
            self.closed_with = self.closing or self.closed_with

    async def _sent(self, frame: str | Close) -> bool:
        """Send what comes next; true if it was the end."""
        if isinstance(frame, Close):
            self.closed_with = frame
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._websocket.close(frame.code, frame.reason)
            return True
        self._bytes -= len(frame)
        await self._write(frame)
        return False

    async def _write(self, frame: str) -> None:
        async with asyncio.timeout(self._settings.send_timeout_s):
            await self._websocket.send({"type": "websocket.send", "text": frame})
