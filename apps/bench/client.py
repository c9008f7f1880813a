"""A client of `/v1/realtime` that notes when what arrived. Each question stands alone: no conversation grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from pipeline.errors import PenstockError

TEXT_ONLY = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}
ANSWER_S = 120.0
OPEN_S = 30.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Timing(NamedTuple):
    """One answer: seconds from the intended start to its first and last token, how many tokens, and its text."""

    first: float
    last: float
    tokens: int
    text: str = ""

    @property
    def per_token(self) -> float:
        """Seconds from one token to the next."""
        return (self.last - self.first) / max(1, self.tokens - 1)


class Ended(NamedTuple):
    """How a response ended, or that it was `refused`.

    Seconds from the intended start to the first token, if one came, and to the end; of what failed the code and when to
    come back.
    """

    status: str
    first: float | None
    last: float
    tokens: int = 0
    text: str = ""
    code: str | None = None
    retry_after: float | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer, whole or cut at the longest."""
        return self.status in ("completed", "incomplete")


class Unanswered(PenstockError):
    """The pipe did not answer, so there is nothing to measure."""


class Asker:
    """One session over one WebSocket, which counts what it receives."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.frames = 0
        self.characters = 0

    @classmethod
    async def connected(cls, url: str, key: str | None = None) -> Asker:
        """Open a session at `url` (ws://host:port), with an API key where one is wanted."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        socket = await connect(
            f"{url}/v1/realtime", compression=None, max_queue=None, additional_headers=headers, open_timeout=OPEN_S
        )
        await socket.send(_encode(TEXT_ONLY).decode())
        while _decode(await socket.recv())["type"] != "session.updated":
            pass
        return cls(socket)

    async def close(self) -> None:
        """Hang up."""
        await self._socket.close()

    async def ask(self, question: str, *, tokens: int, seed: int = 0, intended: float | None = None) -> Timing:
        """Ask and read the answer to its end; times count from `intended` (perf_counter), or else from now.

        Raises:
            Unanswered: the answer failed.
        """
        ended = await self.attempt(question, tokens=tokens, seed=seed, intended=intended)
        if not ended.answered or not ended.tokens or ended.first is None:
            raise Unanswered(f"the answer ended as {ended.status}, {ended.code or 'without a reason'}")
        return Timing(ended.first, ended.last, ended.tokens, ended.text)

    async def attempt(
        self, question: str, *, tokens: int, seed: int = 0, temperature: float = 0.0, intended: float | None = None
    ) -> Ended:
        """Ask, and see how it ends. Raises TimeoutError where it does not."""
        begun = time.perf_counter() if intended is None else intended
        async with asyncio.timeout(ANSWER_S):
            await self.begin(question, tokens=tokens, seed=seed, temperature=temperature)
            return await self.end(begun)

    async def begin(self, question: str, *, tokens: int, seed: int = 0, temperature: float = 0.0) -> None:
        """Ask, and read nothing."""
        await self.send(_request(question, tokens, seed, temperature))

    async def end(self, begun: float, told: Callable[[str], Awaitable[None]] | None = None) -> Ended:
        """Read to the end of a response that was asked for; `told` is called with the text at each piece of it."""
        first, pieces = None, ""
        while True:
            event = await self.event()
            since = time.perf_counter() - begun
            if event["type"] == "response.output_text.delta":
                first = first or since
                pieces += event["delta"]
                if told is not None:
                    await told(pieces)
            elif event["type"] == "response.done":
                return _ended(event["response"], first, since, pieces)
            elif event["type"] == "error":
                error = event["error"]
                return Ended("refused", None, since, code=error["code"], retry_after=error.get("retry_after"))

    async def send(self, event: Mapping[str, Any]) -> None:
        """Send a client event."""
        await self._socket.send(_encode(event).decode())

    def vanish(self) -> None:
        """Be gone without a word, as with a cable that is pulled."""
        self._socket.transport.abort()

    async def event(self) -> dict[str, Any]:
        """The next event."""
        frame = await self._socket.recv()
        self.frames += 1
        self.characters += len(frame)
        event: dict[str, Any] = _decode(frame)
        return event


class Unread:
    """A client that asks and never reads."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @classmethod
    async def connected(cls, url: str) -> Unread:
        """Open a session at `url` (ws://host:port), which takes next to nothing before it must be read."""
        return cls(await connect(f"{url}/v1/realtime", compression=None, max_queue=1, open_timeout=OPEN_S))

    async def ask_on(self, question: str, *, each_s: float = 2.0) -> None:
        """Ask again and again, until the server has enough of it."""
        while True:
            await self._socket.send(_encode(_request(question, 64, 0, 0.0)).decode())
            await asyncio.sleep(each_s)

    def vanish(self) -> None:
        """Be gone without a word."""
        self._socket.transport.abort()


def _request(question: str, tokens: int, seed: int, temperature: float) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": question}]}
    chosen = {"max_output_tokens": tokens, "temperature": temperature, "seed": seed}
    return {"type": "response.create", "response": {"conversation": "none", "input": [item], **chosen}}


def _ended(response: Mapping[str, Any], first: float | None, last: float, text: str) -> Ended:
    error = (response.get("status_details") or {}).get("error") or {}
    tokens = int(response["usage"]["output_tokens"])
    return Ended(response["status"], first, last, tokens, text, error.get("code"), error.get("retry_after"))
