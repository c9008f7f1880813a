"""The client's side of voice: a call to `/v1/realtime`, and a microphone that speaks sound files into it.

What the programs and the bench share. Every event comes with the moment at which it arrived (`time.perf_counter`).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from apps.chat.line import NobodyListens, Refused, reason, told
from apps.voice.transcript import Event
from pipeline.errors import PenstockError, SettingsError
from pipeline.voice import RATE

CONNECT_S = 10.0
TRANSCRIPTION = "transcription"
BYTES_PER_SAMPLE = 2
PIECE = RATE // 20
"""Samples that a microphone gives at once: 50 ms."""
FAULT_OF_SERVER = 500

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class CallLost(PenstockError):
    """The connection broke, or the gateway ended it."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the connection to {url} was lost: {why}")


class Arrived(NamedTuple):
    """An event, and when it came."""

    at: float
    event: Event


class Call:
    """A session over one WebSocket. A lost connection ends it."""

    def __init__(self, socket: ClientConnection, url: str) -> None:
        self._socket = socket
        self._url = url
        self.session = ""
        """Its id, once it is configured."""

    async def send(self, event: Mapping[str, Any]) -> None:
        """Send a client event.

        Raises:
            CallLost: the connection is gone.
        """
        try:
            await self._socket.send(_encode(event).decode())
        except ConnectionClosed as error:
            raise CallLost(self._url, _closed(error)) from error

    async def append(self, sound: bytes) -> None:
        """Send PCM16 at 24 kHz."""
        await self.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode("ascii")})

    async def next(self) -> Arrived:
        """The next event.

        Raises:
            CallLost: the connection is gone.
        """
        try:
            frame = await self._socket.recv()
        except ConnectionClosed as error:
            raise CallLost(self._url, _closed(error)) from error
        return Arrived(time.perf_counter(), _decode(frame))

    async def configure(self, session: Mapping[str, Any]) -> Event:
        """Say how the session shall be, and wait for the word that it is.

        Raises:
            Refused: it cannot be so.
        """
        await self.send({"type": "session.update", "event_id": "configure", "session": session})
        async with asyncio.timeout(CONNECT_S):
            while (event := (await self.next()).event)["type"] != "session.updated":
                if event["type"] == "error":
                    raise Refused(self._url, event["error"]["message"])
        updated: Event = event["session"]
        self.session = str(updated.get("id", ""))
        return updated


@asynccontextmanager
async def call(
    url: str, session: Mapping[str, Any], *, key: str = "", intent: str = "", model: str = ""
) -> AsyncGenerator[Call, None]:
    """A session at `url` (ws://host:port, or a Realtime endpoint's whole address) meanwhile, configured as `session`.

    Raises:
        NobodyListens: no gateway answers.
        Refused: it does, and refuses.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = address_of(url, intent=intent, model=model)
    try:
        socket = await connect(
            address,
            additional_headers=headers,
            open_timeout=CONNECT_S,
            compression=None,
            max_queue=None,
            max_size=None,
        )
    except InvalidURI as error:
        raise SettingsError("chat.url", f"{url!r} is not an address; write ws://host:port") from error
    except InvalidStatus as error:
        if error.response.status_code >= FAULT_OF_SERVER:
            raise NobodyListens(url, told(error)) from error
        raise Refused(url, told(error)) from error
    except (OSError, InvalidHandshake, ConnectionClosed) as error:
        raise NobodyListens(url, reason(error)) from error
    async with socket:
        made = Call(socket, url)
        await made.configure(session)
        yield made


def address_of(url: str, *, intent: str = "", model: str = "") -> str:
    """The address of the Realtime endpoint at `url`."""
    scheme, place, path, query, _ = urlsplit(url)
    more = urlencode({name: value for name, value in (("intent", intent), ("model", model)) if value})
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    return urlunsplit((scheme, place, path.rstrip("/") or "/v1/realtime", "&".join(filter(None, (query, more))), ""))


def _closed(error: ConnectionClosed) -> str:
    close = error.rcvd
    return f"{close.reason or 'the gateway hung up'} ({close.code})" if close else "it broke off"


class Said(NamedTuple):
    """What was spoken into a microphone: its first sample, and the sample after its last."""

    start: int
    end: int


class Microphone:
    """A microphone that is always on, in real time: it gives what it shall say, and silence between.

    A sample is given to the call no earlier than it would have been recorded: sample n at `begun` + n / RATE / `speed`.
    What is late is sent late, and the clock goes on: whoever measures counts from it, not from the sending.

    Args:
        speed: seconds of sound in a second.
    """

    def __init__(self, *, speed: float = 1.0, piece: int = PIECE) -> None:
        self._speed, self._piece = speed, piece
        self._waiting = bytearray()
        self._sent = self._ends = self._given = 0
        self._gave = asyncio.Event()
        self.begun = time.perf_counter()

    def when(self, sample: int) -> float:
        """The moment (`time.perf_counter`) at which sample number `sample` was heard, or will be."""
        return self.begun + sample / RATE / self._speed

    @property
    def now(self) -> float:
        """The clock by which all moments are told."""
        return time.perf_counter()

    @property
    def quiet_since(self) -> float:
        """The moment at which all that is to be said has been said, or will be."""
        return self.when(self._ends)

    def say(self, sound: bytes) -> Said:
        """Speak `sound` after what is being said now."""
        start = self._sent + len(self._waiting) // BYTES_PER_SAMPLE
        self._waiting += sound
        self._ends = start + len(sound) // BYTES_PER_SAMPLE
        return Said(start, self._ends)

    async def through(self, said: Said) -> None:
        """Return when all of it has been given to the call."""
        while self._given < said.end:
            self._gave.clear()
            await self._gave.wait()

    async def run(self, into: Call) -> None:
        """Speak for ever."""
        self.begun = time.perf_counter() - self._sent / RATE / self._speed
        while True:
            await asyncio.sleep(self.when(self._sent + self._piece) - time.perf_counter())
            size = self._piece * BYTES_PER_SAMPLE
            sound = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._sent += self._piece
            await into.append(sound.ljust(size, b"\0"))
            self._given = self._sent
            self._gave.set()
