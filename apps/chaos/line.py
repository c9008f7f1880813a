"""A connection to `/v1/realtime` that is renewed when it is lost, as a client does that wants to go on.

Its session goes on where it was, at whichever gateway lets it in. Knows nothing of what is said over it, nor of faults.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from pipeline.errors import PenstockError

OPEN_S = 5.0
BACK_S = 45.0
"""Within what a session is gone on with, while its gateways are away."""
RETRY_S = 0.1
PING_S = 5.0
LOST = frozenset({"resume_failed", "session_taken", "session_expired"})
"""Errors after which a session cannot be gone on with; any other that names no event of ours says to come back."""

Event = dict[str, Any]
Lost = (InvalidHandshake, InvalidMessage, OSError, TimeoutError, ConnectionClosed, EOFError)


class SessionLost(PenstockError):
    """A session that cannot be gone on with, although it should."""


class Noted(Protocol):
    """Where it is noted how often a connection was lost, and how many events had an id that had come before."""

    reconnects: int
    repeated_events: int


class Line:
    """The connection of a client, at first to number `at` of `urls`; `connected` hears the number of each it gets to.

    `session` is the session's id, once it is known.
    """

    def __init__(
        self, urls: Sequence[str], at: int, noted: Noted, connected: Callable[[int], None] = lambda at: None
    ) -> None:
        self._urls, self._noted, self.connected = urls, noted, connected
        self._at = at % len(urls)
        self._socket: ClientConnection | None = None
        self._last = ""
        self._seen: set[str] = set()
        self.session = ""

    @property
    def at(self) -> int:
        """The gateway that it is connected to."""
        return self._at

    async def open(self) -> None:
        """Begin a session.

        Raises:
            SessionLost: no gateway lets it in.
        """
        await self._connect()
        async with within(BACK_S):
            while not self.session:
                await self.next()

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await socket.close()

    async def put(self, event: Event) -> None:
        """Send an event. One that does not get through is no error: `next` finds the connection lost."""
        assert self._socket is not None
        try:
            await self._socket.send(json.dumps(event))
        except ConnectionClosed:
            return

    async def next(self) -> Event | None:
        """The next event; None where the connection was lost, and is there again: what was unheard has to be sent.

        Raises:
            SessionLost: the session does not go on.
        """
        assert self._socket is not None
        try:
            frame = await self._socket.recv()
        except ConnectionClosed:
            await self._again()
            return None
        event: Event = json.loads(frame)
        self._note(event)
        return event

    async def move(self) -> None:
        """Go on at another gateway."""
        assert self._socket is not None
        await self._socket.close()
        await self._again()

    async def _again(self) -> None:
        self._noted.reconnects += 1
        self._at = (self._at + 1) % len(self._urls)
        await asyncio.sleep(RETRY_S)
        await self._connect()

    async def _connect(self) -> None:
        """Connect to a gateway, going on with the session if there is one."""
        deadline, why = time.monotonic() + BACK_S, ""
        while time.monotonic() < deadline:
            try:
                self._socket = await connect(
                    self._url(),
                    compression=None,
                    max_queue=None,
                    max_size=None,
                    open_timeout=OPEN_S,
                    ping_interval=PING_S,
                )
            except Lost as error:
                why = str(error) or type(error).__name__
                self._at = (self._at + 1) % len(self._urls)
                await asyncio.sleep(RETRY_S)
            else:
                self.connected(self._at)
                return
        raise SessionLost(f"no gateway took it within {BACK_S:.0f} s: {why}")

    def _url(self) -> str:
        query = {"resume": self.session, "last_event_id": self._last} if self._last else {}
        return f"{self._urls[self._at]}/v1/realtime" + (f"?{urlencode(query)}" if query else "")

    def _note(self, event: Event) -> None:
        if event["type"] == "error":
            if (code := event["error"].get("code")) in LOST:
                raise SessionLost(f"{code}: {event['error'].get('message')}")
            return
        self._last = identity = event["event_id"]
        self._noted.repeated_events += identity in self._seen
        self._seen.add(identity)
        if event["type"] == "session.created":
            self._begun(event["session"]["id"])

    def _begun(self, session: str) -> None:
        if self.session and session != self.session:
            raise SessionLost(f"instead of going on with it, the gateway began session {session}")
        self.session = session


@asynccontextmanager
async def within(seconds: float) -> AsyncGenerator[None, None]:
    """What takes longer has been lost.

    Raises:
        SessionLost: it has.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SessionLost(f"nothing more came within {seconds:.0f} s") from None
