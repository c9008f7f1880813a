"""The chat in a terminal: a client of `/v1/realtime` like any other, that streams answers and comes back after a loss.

Knows the protocol's events, and nothing of what stands behind the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from rich.console import Console
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from pipeline.errors import PenstockError

CONNECT_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
TEXT_ONLY = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}

Event = dict[str, Any]


class NobodyListens(PenstockError):
    """No gateway answers at `url`."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"no gateway answers at {url} ({why}); start one with `penstock up`, or name it with --url")


class Refused(PenstockError):
    """The gateway answers, and will not have us."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the gateway at {url} refuses the connection: {why}")


class Line:
    """A connection to the gateway. Once it has stood it is renewed when it is lost, and the session goes on."""

    def __init__(
        self, url: str, *, key: str = "", model: str = "", session: str = "", patience_s: float = 60.0
    ) -> None:
        self._url, self._key, self._model = url, key, model
        self._session = session
        self._last_event = ""
        self._patience_s = patience_s
        self._socket: ClientConnection | None = None

    @property
    def session(self) -> str:
        """The id of the session, once there is one."""
        return self._session

    async def open(self) -> None:
        """Connect, for the first time.

        Raises:
            NobodyListens: no gateway answers.
            Refused: it does, and refuses.
        """
        try:
            self._socket = await self._connected()
        except (OSError, InvalidHandshake) as error:
            raise NobodyListens(self._url, _reason(error)) from error

    async def send(self, event: Event) -> None:
        """Send `event`; if the connection is being lost, `events` is where that shows."""
        assert self._socket is not None
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(json.dumps(event))

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the gateway sends; none of it is lost or repeated when the connection is renewed.

        Raises:
            NobodyListens: the gateway did not come back.
            Refused: it did, and does not know the session any more.
        """
        while True:
            assert self._socket is not None
            with contextlib.suppress(ConnectionClosed):
                async for frame in self._socket:
                    event: Event = json.loads(frame)
                    self._note(event)
                    yield event
            self._socket = await self._renewed()

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            await self._socket.close()

    def _note(self, event: Event) -> None:
        self._last_event = event.get("event_id", self._last_event)
        if event["type"] == "session.created":
            self._session = event["session"]["id"]

    async def _renewed(self) -> ClientConnection:
        wait = FIRST_WAIT_S
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    try:
                        return await self._connected()
                    except (OSError, InvalidHandshake):
                        await asyncio.sleep(wait)
                        wait = min(2 * wait, LONGEST_WAIT_S)
        except TimeoutError as error:
            raise NobodyListens(self._url, f"lost, and not back within {self._patience_s:g} s") from error

    async def _connected(self) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            return await connect(self._address(), additional_headers=headers, open_timeout=CONNECT_S, compression=None)
        except InvalidStatus as error:
            body = error.response.body
            why = f"HTTP {error.response.status_code} {bytes(body).decode(errors='replace').strip() if body else ''}"
            if error.response.status_code >= 500:
                raise
            raise Refused(self._url, why.strip()) from error

    def _address(self) -> str:
        scheme, place, path, _, _ = urlsplit(self._url)
        query = {"model": self._model} if self._model else {}
        if self._session:
            query |= {"resume": self._session}
        if self._last_event:
            query |= {"last_event_id": self._last_event}
        scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
        return urlunsplit((scheme, place, path.rstrip("/") or "/v1/realtime", urlencode(query), ""))


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Conversation:
    """Says something and streams the answer; `stop` gives the answer up."""

    def __init__(self, line: Line, console: Console) -> None:
        self._line = line
        self._console = console
        self._events = line.events()
        self.answering = False

    async def start(self) -> None:
        """Ask for answers in text."""
        await self._line.send(TEXT_ONLY)

    async def say(self, text: str) -> bool:
        """Send `text` and show the answer as it comes; whether it was completed."""
        content = [{"type": "input_text", "text": text}]
        await self._line.send(
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}
        )
        await self._line.send({"type": "response.create"})
        self.answering = True
        try:
            return await self._answer()
        finally:
            self.answering = False

    async def stop(self) -> None:
        """Give the answer up."""
        await self._line.send({"type": "response.cancel"})

    async def close(self) -> None:
        """Hang up."""
        await self._events.aclose()
        await self._line.close()

    async def _answer(self) -> bool:
        async for event in self._events:
            kind = event["type"]
            if kind == "response.output_text.delta":
                self._console.out(event["delta"], end="", highlight=False)
            elif kind == "error":
                return self._failed(event["error"]["message"])
            elif kind == "response.done":
                self._console.out("")
                return self._ended(event["response"])
        raise AssertionError("events end with an error")

    def _ended(self, response: Event) -> bool:
        status = response["status"]
        details = response.get("status_details") or {}
        if status == "failed":
            return self._failed((details.get("error") or {}).get("message") or "the answer failed")
        if status != "completed":
            self._note(f"({status}: {details.get('reason', 'no reason given')})")
        return bool(status == "completed")

    def _failed(self, why: str) -> bool:
        Console(stderr=True).print(why, style="red", markup=False, highlight=False)
        return False

    def _note(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(text, style="dim", markup=False, highlight=False)


async def lines(console: Console) -> AsyncGenerator[str, None]:
    """What is typed, line by line; ends with the end of the input. The terminal's own line editing works."""
    loop = asyncio.get_running_loop()
    while True:
        typed: asyncio.Future[str | None] = loop.create_future()

        def read(answer: asyncio.Future[str | None] = typed) -> None:
            try:
                line: str | None = console.input("[bold cyan]>[/] ") if console.is_terminal else _piped()
            except (EOFError, KeyboardInterrupt):
                line = None
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, answer, line)

        threading.Thread(target=read, daemon=True).start()  # of its own: a terminal's read cannot be cancelled
        line = await typed
        if line is None:
            return
        if line.strip():
            yield line.strip()


def _settle(answer: asyncio.Future[str | None], line: str | None) -> None:
    if not answer.done():
        answer.set_result(line)


def _piped() -> str | None:
    return sys.stdin.readline() or None


async def talk(line: Line, *, once: str | None = None) -> bool:
    """Hold a conversation until the input ends, or send `once` alone; whether every answer was completed.

    Raises:
        NobodyListens: no gateway answers, or it did not come back.
        Refused: it answers, and refuses.
    """
    console = Console(force_terminal=None if sys.stdin.isatty() else False, soft_wrap=True)
    await line.open()
    conversation = Conversation(line, console)
    await conversation.start()
    talking = asyncio.ensure_future(_talk(conversation, console, once))
    stopping: set[asyncio.Task[None]] = set()

    def interrupted() -> None:
        if conversation.answering and not stopping:
            stopping.add(asyncio.ensure_future(conversation.stop()))
        else:
            talking.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)
    try:
        return await talking
    except asyncio.CancelledError:
        return False
    finally:
        await conversation.close()


async def _talk(conversation: Conversation, console: Console, once: str | None) -> bool:
    if once is not None:
        return await conversation.say(once)
    if console.is_terminal:
        console.print("Ctrl-C stops an answer, once more or Ctrl-D leaves.", style="dim")
    completed = True
    async with aclosing(lines(console)) as typed:
        async for text in typed:
            completed = await conversation.say(text) and completed
    return completed
