"""A client's connection to `/v1/realtime` that is renewed when it is lost. Knows no terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import State

from pipeline.errors import PenstockError, SettingsError

Event = dict[str, Any]

CONNECT_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
FAULT_OF_SERVER = 500
LOST: Event = {"type": "penstock.session_lost"}


class NobodyListens(PenstockError):
    """No gateway answers at `url`."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"no gateway answers at {url} ({why}); start one with `penstock up`, or name it with --url")


class Refused(PenstockError):
    """The gateway answers, and will not have us."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the gateway at {url} refuses the connection: {why}")


class Line:
    """A connection to the gateway. Once it has stood it is renewed when it is lost, and the session goes on.

    Args:
        url: ws://host:port, or the whole address of a Realtime endpoint.
        key: API key, where one is wanted.
        model: the model to ask for.
        session: a session to go on with.
        patience_s: how long a lost gateway is waited for.
    """

    def __init__(
        self, url: str, *, key: str = "", model: str = "", session: str = "", patience_s: float = 60.0
    ) -> None:
        self._url, self._key, self._model = url, key, model
        self._session = session
        self._last_event = ""
        self._patience_s = patience_s
        self._socket: ClientConnection | None = None

    async def open(self) -> bool:
        """Connect for the first time; whether it is the session that was asked for, if one was.

        Raises:
            NobodyListens: no gateway answers.
            Refused: it does, and refuses.
        """
        asked = self._session
        try:
            self._socket = await self._connected()
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            raise NobodyListens(self._url, reason(error)) from error
        return asked in ("", self._session)

    async def ready(self) -> bool:
        """Renew a connection that was lost while nobody looked; whether the session is still the same.

        Raises:
            NobodyListens: the gateway did not come back.
            Refused: it did, and refuses.
        """
        assert self._socket is not None
        if self._socket.state is State.OPEN:
            return True
        before = self._session
        self._socket = await self._renewed()
        return self._session == before

    async def send(self, event: Event) -> None:
        """Send `event`; if the connection is being lost, `events` is where that shows."""
        assert self._socket is not None
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(json.dumps(event))

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the gateway sends, and `LOST` where it comes back without our session.

        Raises:
            NobodyListens: the gateway did not come back.
            Refused: it did, and refuses.
        """
        while True:
            socket = self._socket
            assert socket is not None
            with contextlib.suppress(ConnectionClosed):
                async for frame in socket:
                    yield self._noted(frame)
            if self._socket is not socket:  # `ready` has renewed it meanwhile
                continue
            before = self._session
            self._socket = await self._renewed()
            if self._session != before:
                yield LOST

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            await self._socket.close()

    def _noted(self, frame: str | bytes) -> Event:
        event: Event = json.loads(frame)
        self._last_event = event.get("event_id", self._last_event)
        return event

    async def _renewed(self) -> ClientConnection:
        wait = FIRST_WAIT_S
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    try:
                        return await self._connected()
                    except (OSError, InvalidHandshake, ConnectionClosed):
                        await asyncio.sleep(wait)
                        wait = min(2 * wait, LONGEST_WAIT_S)
        except TimeoutError as error:
            raise NobodyListens(self._url, f"lost, and not back within {self._patience_s:g} s") from error

    async def _connected(self) -> ClientConnection:
        """A connection whose first event has told the session."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            socket = await connect(
                self._address(), additional_headers=headers, open_timeout=CONNECT_S, compression=None
            )
        except InvalidURI as error:
            raise SettingsError("chat.url", f"{self._url!r} is not an address; write ws://host:port") from error
        except InvalidStatus as error:
            if error.response.status_code >= FAULT_OF_SERVER:
                raise
            raise Refused(self._url, told(error)) from error
        async with asyncio.timeout(CONNECT_S):
            first = self._noted(await socket.recv())
        if first["type"] == "error":
            await socket.close()
            raise Refused(self._url, first["error"]["message"])
        self._session = first["session"]["id"]
        return socket

    def _address(self) -> str:
        scheme, place, path, _, _ = urlsplit(self._url)
        query = {"model": self._model} if self._model else {}
        if self._session:
            query |= {"resume": self._session, "last_event_id": self._last_event}
        scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
        return urlunsplit((scheme, place, path.rstrip("/") or "/v1/realtime", urlencode(query), ""))


def reason(error: BaseException) -> str:
    """Why there is no connection, in a line."""
    if isinstance(error, InvalidStatus):
        return told(error)
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def told(error: InvalidStatus) -> str:
    """What a refused handshake says: the message in its JSON, if there is one."""
    status = error.response.status_code
    try:
        return str(json.loads(error.response.body or b"")["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
