"""A plain client of `/v1/realtime`, which keeps what it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

TEXT_ONLY = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}


class Client:
    """One session. `text` is all that was answered so far to the last question."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.text = ""

    async def say(self, text: str, **options: Any) -> None:
        """Ask; `options` are those of `response.create`."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self._send({"type": "conversation.item.create", "item": item})
        await self.ask(options)

    async def ask(self, response: dict[str, Any]) -> None:
        """Create a response."""
        self.text = ""
        await self._send({"type": "response.create", "response": response})

    async def until(self, characters: int) -> None:
        """Read until so much of the answer has come."""
        while len(self.text) < characters:
            ended = await self._next()
            assert ended is None, f"the answer ended early: {ended}"

    async def answer(self) -> str:
        """Read the answer to its end."""
        while True:
            response = await self._next()
            if response is not None:
                assert response["status"] in ("completed", "incomplete"), response
                said = "".join(part["text"] for item in response["output"] for part in item["content"])
                assert said == self.text
                return said

    async def _next(self) -> Any:
        """The next event: the response if it has ended."""
        event = json.loads(await self._socket.recv())
        assert event["type"] != "error", event
        if event["type"] == "response.output_text.delta":
            self.text += event["delta"]
        return event["response"] if event["type"] == "response.done" else None

    async def _send(self, event: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(event))


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Client]:
    """A session at the gateway of that address, in text."""
    async with connect(f"{url}/v1/realtime", compression=None) as socket:
        await socket.send(json.dumps(TEXT_ONLY))
        yield Client(socket)
