"""A gateway with ears for loudness alone: what is loud is speech, which `words` are said in, and a tone is the reply.

Small enough to be sure of, and in real time where the client is.
"""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.apps.voice.sounds import RATE, tone

LOUD = 1000
SILENCE_S = 0.2
LEAD_S = 0.1
DEADLINE_S = 20


@dataclass
class Ears:
    """What one session was told, and does about it."""

    socket: ServerConnection
    gateway: Gateway
    session: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    voiced: int | None = None
    uncommitted: int = 0
    item: str = ""
    response: str = ""
    speaking: asyncio.Task[None] | None = None
    truncated: list[int] = field(default_factory=list)

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, "event_id": f"event_{next(self.gateway.numbers)}", **fields}))

    async def hear(self, sound: bytes) -> None:
        """Take sound piece by piece of 10 ms."""
        for at in range(0, len(sound), RATE // 50):
            piece = sound[at : at + RATE // 50]
            self.position += len(piece) // 2
            self.uncommitted += len(piece) // 2
            if max(map(abs, array("h", piece)), default=0) >= LOUD:
                if self.voiced is None and self.detects:
                    await self.begins()
                self.voiced = self.position
            elif not self.detects:
                continue
            elif self.voiced is not None and self.position - self.voiced >= SILENCE_S * RATE:
                await self.ends()

    @property
    def detects(self) -> bool:
        """Whether turns are found by their sound."""
        return self.session["audio"]["input"]["turn_detection"] is not None

    async def begins(self) -> None:
        """Speech begins, and a reply under way ends."""
        self.item = f"item_{next(self.gateway.numbers)}"
        await self.tell("input_audio_buffer.speech_started", item_id=self.item, audio_start_ms=self.position // 24)
        await self.silenced()

    async def silenced(self) -> None:
        """End the reply that is being spoken."""
        if self.speaking is not None and not self.speaking.done():
            self.speaking.cancel()
            await asyncio.wait([self.speaking])
            details = {"type": "cancelled", "reason": "turn_detected"}
            await self.done("cancelled", details)

    async def ends(self) -> None:
        """Speech ends: words for it, and a reply."""
        assert self.voiced is not None
        await self.tell("input_audio_buffer.speech_stopped", item_id=self.item, audio_end_ms=self.voiced // 24)
        self.voiced = None
        await self.committed(self.item, next(self.gateway.words, ""))
        if self.session.get("type") == "realtime":
            await self.reply()

    async def committed(self, item: str, text: str) -> None:
        """A turn of the speaker's, and what was said in it."""
        self.uncommitted = 0
        await self.tell("input_audio_buffer.committed", item_id=item)
        head, tail = text[: len(text) // 2], text[len(text) // 2 :]
        for delta in filter(None, (head, tail)):
            await self.tell("conversation.item.input_audio_transcription.delta", item_id=item, delta=delta)
        kind = "conversation.item.input_audio_transcription.completed"
        await self.tell(kind, item_id=item, content_index=0, transcript=text)

    async def reply(self) -> None:
        """Begin to speak."""
        self.response = f"resp_{next(self.gateway.numbers)}"
        await self.tell("response.created", response={"id": self.response})
        lengths = self.gateway.answers_s
        seconds = lengths.pop(0) if len(lengths) > 1 else lengths[0]
        self.speaking = asyncio.create_task(self.speak(seconds))

    async def speak(self, seconds: float) -> None:
        """Say the reply, no earlier than a loudspeaker needs it."""
        about = {
            "response_id": self.response,
            "item_id": f"said_{self.response}",
            "output_index": 0,
            "content_index": 0,
        }
        await self.tell("response.output_audio_transcript.delta", **about, delta=self.gateway.answer)
        sound = tone(seconds)
        begun = asyncio.get_running_loop().time()
        for at in range(0, len(sound), RATE // 5):
            await asyncio.sleep(begun + at / 2 / RATE - LEAD_S - asyncio.get_running_loop().time())
            data = base64.b64encode(sound[at : at + RATE // 5]).decode()
            await self.tell("response.output_audio.delta", **about, delta=data)
        await self.done(self.gateway.status, self.gateway.details)

    async def done(self, status: str, details: dict[str, Any] | None) -> None:
        """The reply has ended."""
        await self.tell("response.done", response={"id": self.response, "status": status, "status_details": details})

    async def take(self, event: dict[str, Any]) -> None:
        """Do what an event asks for."""
        kind = event["type"]
        if kind == "session.update":
            self.session = event["session"]
            await self.tell("session.updated", session=self.session)
        elif kind == "input_audio_buffer.append":
            await self.hear(base64.b64decode(event["audio"]))
        elif kind == "input_audio_buffer.commit":
            await self.commit(event)
        elif kind == "conversation.item.truncate":
            self.truncated.append(event["audio_end_ms"])
        elif kind == "response.create":
            await self.reply()

    async def commit(self, event: dict[str, Any]) -> None:
        """End the turn here; without any sound since the last one that is an error."""
        if not self.uncommitted:
            error = {"message": "nothing to commit", "code": "input_audio_buffer_commit_empty"}
            await self.tell("error", error={**error, "event_id": event.get("event_id")})
            return
        voiced, self.voiced = self.voiced, None
        text = next(self.gateway.words, "") if voiced is not None else ""
        await self.committed(f"item_{next(self.gateway.numbers)}", text)


class Gateway:
    """Serves sessions; `sessions` are all there were.

    Args:
        words: what is said in each utterance.
        answers_s: seconds of each reply, the last for all further ones.
    """

    def __init__(self, *words: str, answer: str = "It is ninety euros.", answers_s: Sequence[float] = (0.4,)) -> None:
        self.words: Iterator[str] = iter(words)
        self.answer, self.answers_s = answer, [*answers_s]
        self.status = "completed"
        self.details: dict[str, Any] | None = None
        self.numbers = count(1)
        self.sessions: list[Ears] = []
        self.paths: list[str] = []

    async def handle(self, socket: ServerConnection) -> None:
        """Serve a session."""
        assert socket.request is not None
        self.paths.append(socket.request.path)
        ears = Ears(socket, self)
        self.sessions.append(ears)
        try:
            await ears.tell("session.created", session={"id": "sess_1"})
            async for frame in socket:
                await ears.take(json.loads(frame))
        except ConnectionClosed:
            pass
        finally:
            if ears.speaking is not None:
                ears.speaking.cancel()
                await asyncio.wait([ears.speaking])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve meanwhile; gives the address."""
        async with asyncio.timeout(DEADLINE_S), serve(self.handle, "127.0.0.1", 0, max_size=None) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
