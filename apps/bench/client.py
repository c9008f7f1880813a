"""A client of `/v1/realtime` that notes when what arrived. Each question stands alone: no conversation grows."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from pipeline.errors import PenstockError

TEXT_ONLY = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}
ANSWER_S = 120.0

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


class Unanswered(PenstockError):
    """The pipe did not answer, so there is nothing to measure."""


class Asker:
    """One session over one WebSocket, which counts what it receives."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.frames = 0
        self.characters = 0

    @classmethod
    async def connected(cls, url: str) -> Asker:
        """Open a session at `url` (ws://host:port)."""
        socket = await connect(f"{url}/v1/realtime", compression=None, max_queue=None)
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
        begun = time.perf_counter() if intended is None else intended
        async with asyncio.timeout(ANSWER_S):
            return await self._ask(question, tokens, seed, begun)

    async def _ask(self, question: str, tokens: int, seed: int, begun: float) -> Timing:
        await self._socket.send(_encode(_request(question, tokens, seed)).decode())
        first = last = 0.0
        pieces: list[str] = []
        while True:
            event = await self._event()
            if event["type"] == "response.output_text.delta":
                last = time.perf_counter() - begun
                first = first or last
                pieces.append(event["delta"])
            elif event["type"] == "response.done":
                return Timing(first, last, _tokens(event["response"]), "".join(pieces))
            elif event["type"] == "error":
                raise Unanswered(f"the gateway refused the question: {event['error']['message']}")

    async def _event(self) -> dict[str, Any]:
        frame = await self._socket.recv()
        self.frames += 1
        self.characters += len(frame)
        event: dict[str, Any] = _decode(frame)
        return event


def _request(question: str, tokens: int, seed: int) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": question}]}
    chosen = {"max_output_tokens": tokens, "temperature": 0, "seed": seed}
    return {"type": "response.create", "response": {"conversation": "none", "input": [item], **chosen}}


def _tokens(response: dict[str, Any]) -> int:
    if response["status"] not in ("completed", "incomplete") or not response["usage"]["output_tokens"]:
        raise Unanswered(f"the answer ended as {response['status']}: {response.get('status_details')}")
    return int(response["usage"]["output_tokens"])
