"""One session of the fake realtime server: the exact events, ears for loudness alone, and a tone for a voice."""

from __future__ import annotations

import asyncio
import base64
import re
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.apps.voice.fake_script import Script
from tests.apps.voice.sounds import RATE, tone

LOUD = 1200
FRAME = RATE // 100
PIECE_S = 0.1
WORD = RATE // 4
TEXT_OF = {"input_audio": "transcript", "output_audio": "transcript", "input_text": "text", "output_text": "text"}
UNDER_WAY: dict[str, Any] = {
    "object": "realtime.response",
    "status": "in_progress",
    "status_details": None,
    "output": [],
}


@dataclass
class Turn:
    """What is being said: its item, when it was last loud, and the words."""

    item: str
    loud_at: int
    begun_at: int
    words: list[str]
    told: int = 0


@dataclass
class Answer:
    """A response under way."""

    id: str
    item: str
    task: asyncio.Task[None] | None = None


@dataclass
class Session:
    """A server session, which may outlive its connection."""

    script: Script
    id: str
    socket: WebSocket | None = None
    told: list[dict[str, Any]] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    position: int = 0
    loud_for: int = 0
    loud: int = 0
    crossings: int = 0
    turn: Turn | None = None
    answer: Answer | None = None
    transcribing: asyncio.Event = field(default_factory=asyncio.Event)
    transcription: asyncio.Task[None] | None = None

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Give the client's events of one type."""
        return [event for event in self.heard if event["type"] == kind]

    @property
    def hertz(self) -> float:
        """Give the pitch of what was loud so far."""
        return self.crossings / 2 / (self.loud / RATE)

    @property
    def detection(self) -> dict[str, Any] | None:
        """How its turns end."""
        found: dict[str, Any] | None = self.config["audio"]["input"]["turn_detection"]
        return found

    async def tell(self, kind: str, **fields: Any) -> None:
        """Say something, which is said again to a client that comes back."""
        event = {"type": kind, "event_id": self.script.new("event"), **fields}
        self.told.append(event)
        await self.send(event)

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event to whoever is there."""
        if self.socket:
            with suppress(WebSocketDisconnect, RuntimeError):
                await self.socket.send_json(event)

    # -- hearing

    async def hear(self, event: dict[str, Any]) -> None:
        """Do what the client asks."""
        kind = event["type"]
        if kind != "input_audio_buffer.append":
            self.heard.append(event)
        handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "session.update": self.configure,
            "input_audio_buffer.append": self.listen,
            "input_audio_buffer.commit": self.commit,
            "conversation.item.create": lambda event: self.add(event["item"]),
            "conversation.item.truncate": self.truncate,
            "conversation.item.retrieve": self.retrieve,
            "response.create": self.respond,
            "response.cancel": lambda _: self.cancel("client_cancelled"),
        }
        if kind in handlers:
            await handlers[kind](event)

    async def configure(self, event: dict[str, Any]) -> None:
        """Take a configuration over."""
        self.config = {**self.config, **event["session"], "id": self.id}
        if self.script.dumb:
            self.config["output_modalities"] = ["text"]
        await self.tell("session.updated", session=self.config)

    async def add(self, item: dict[str, Any]) -> None:
        """Add an item to the conversation."""
        previous = next(reversed(self.items), None)
        self.items[item["id"]] = item = {"object": "realtime.item", "status": "completed", **item}
        await self.tell("conversation.item.added", item=item, previous_item_id=previous)
        await self.tell("conversation.item.done", item=item, previous_item_id=previous)

    async def listen(self, event: dict[str, Any]) -> None:
        """Listen to a piece of sound."""
        sound = array("h", base64.b64decode(event["audio"]))
        self.script.samples += len(sound)
        if self.script.deaf:
            error = {"type": "invalid_request_error", "code": "audio_not_supported", "message": "audio is not served"}
            await self.tell("error", error=error)
            return
        for at in range(0, len(sound), FRAME):
            await self.listen_to(sound[at : at + FRAME])

    async def listen_to(self, frame: array[int]) -> None:
        """Find the beginning and the end of speech."""
        self.position += len(frame)
        loud = max(map(abs, frame)) >= LOUD
        if loud:
            self.loud += len(frame)
            self.crossings += sum((a < 0) != (b < 0) for a, b in pairwise(frame))
        self.loud_for = self.loud_for + len(frame) if loud else 0
        if self.detection is None or self.script.absent:
            return
        if self.turn is None and self.loud_for >= 3 * FRAME:
            await self.begin()
        elif self.turn is not None:
            await self.go_on(self.turn, loud)

    async def begin(self) -> None:
        """Speech begins; who was speaking falls silent."""
        begun_at = max(0, self.position - self.loud_for)
        self.turn = Turn(self.script.new("item"), self.position, begun_at, self.script.next_words())
        start = max(0, begun_at * 1000 // RATE - 300)
        await self.tell("input_audio_buffer.speech_started", item_id=self.turn.item, audio_start_ms=start)
        await self.cancel("turn_detected")

    async def go_on(self, turn: Turn, loud: bool) -> None:
        """Speech goes on, or ends."""
        assert self.detection is not None
        if loud:
            turn.loud_at = self.position
        due = min(len(turn.words) - 1, (turn.loud_at - turn.begun_at) // WORD)
        if due > turn.told:
            await self.partial(turn, due)
        if self.position - turn.loud_at >= self.detection["silence_duration_ms"] * RATE // 1000:
            self.turn = None
            end = self.position * 1000 // RATE
            await self.tell("input_audio_buffer.speech_stopped", item_id=turn.item, audio_end_ms=end)
            await self.committed(turn)

    async def partial(self, turn: Turn, count: int) -> None:
        """Tell the words up to number `count`."""
        delta = "".join(turn.words[turn.told : count])
        turn.told = count
        kind = "conversation.item.input_audio_transcription.delta"
        await self.tell(kind, item_id=turn.item, content_index=0, delta=delta)

    async def commit(self, _: dict[str, Any]) -> None:
        """End a turn by hand."""
        await self.committed(Turn(self.script.new("item"), 0, 0, self.script.next_words()))

    async def committed(self, turn: Turn) -> None:
        """A turn is in the conversation; its words follow, then an answer."""
        previous = next(reversed(self.items), None)
        await self.tell("input_audio_buffer.committed", item_id=turn.item, previous_item_id=previous)
        content = [{"type": "input_audio", "transcript": None}]
        await self.add({"id": turn.item, "type": "message", "role": "user", "content": content})
        self.transcribing.clear()
        self.transcription = self.script.start(self.transcribe(turn))

    async def transcribe(self, turn: Turn) -> None:
        """Say the words of a turn, and answer if it was found by the server."""
        await asyncio.sleep(0.05)
        await self.partial(turn, len(turn.words))
        text = "".join(turn.words).strip()
        self.items[turn.item]["content"][0]["transcript"] = text
        kind = "conversation.item.input_audio_transcription.completed"
        usage = {"type": "duration", "seconds": 1}
        await self.tell(kind, item_id=turn.item, content_index=0, transcript=text, usage=usage)
        self.transcribing.set()
        if self.detection is not None and text:
            await self.respond({})

    # -- answering

    async def respond(self, _: dict[str, Any]) -> None:
        """Begin an answer."""
        if self.answer:
            error = {"type": "invalid_request_error", "code": "conversation_already_has_active_response"}
            await self.tell("error", error={**error, "message": "one is active"})
            return
        self.answer = Answer(self.script.new("resp"), self.script.new("item"))
        await self.tell("response.created", response={"id": self.answer.id, **UNDER_WAY})
        self.answer.task = self.script.start(self.speak(self.answer))

    async def speak(self, answer: Answer) -> None:
        """Say the answer: its words at once, its sound as it is heard."""
        if self.detection is None and self.turn is None and self.of("input_audio_buffer.commit"):
            await self.transcribing.wait()
        place = {"response_id": answer.id, "item_id": answer.item, "output_index": 0, "content_index": 0}
        spoken = "audio" in self.config["output_modalities"]
        await self.open(answer, place, spoken)
        text = self.script.next_answer()
        said = "output_audio_transcript" if spoken else "output_text"
        for word in re.findall(r"\s*\S+", text):
            await self.tell(f"response.{said}.delta", **place, delta=word)
            self.items[answer.item]["content"][0][TEXT_OF[self.items[answer.item]["content"][0]["type"]]] += word
            await asyncio.sleep(0.005)
        if spoken:
            await self.sound(answer, place, text)
        await self.close(answer, place, text, "completed", None)

    async def open(self, answer: Answer, place: dict[str, Any], spoken: bool) -> None:
        """An item of an answer begins."""
        content = {"type": "output_audio", "transcript": ""} if spoken else {"type": "output_text", "text": ""}
        shown = {"id": answer.item, "object": "realtime.item", "type": "message", "role": "assistant"}
        item = {**shown, "status": "in_progress", "content": []}
        self.items[answer.item] = {**shown, "status": "completed", "content": [content]}
        where = {"response_id": answer.id, "output_index": 0}
        await self.tell("response.output_item.added", **where, item=item)
        await self.tell("conversation.item.added", item=item, previous_item_id=None)
        part = {"type": "audio", "transcript": ""} if spoken else {"type": "text", "text": ""}
        await self.tell("response.content_part.added", **place, part=part)

    async def sound(self, answer: Answer, place: dict[str, Any], text: str) -> None:
        """Send the sound no earlier than it is needed, with marks at the ends of words."""
        seconds = self.script.answer_s
        ends = [found.end() for found in re.finditer(r"\S+", text)]
        marks = [[end, int(end / len(text) * seconds * 1000)] for end in ends] if self.script.marks else []
        sound, since = tone(seconds), asyncio.get_running_loop().time()
        piece = int(PIECE_S * RATE) * 2
        for at in range(0, len(sound), piece):
            await asyncio.sleep(since + at / 2 / RATE - self.script.lead_s - asyncio.get_running_loop().time())
            here = [mark for mark in marks if at / 48 <= mark[1] < (at + piece) / 48]
            self.sent[answer.item] = (at + len(sound[at : at + piece])) // 2
            delta = base64.b64encode(sound[at : at + piece]).decode()
            await self.tell("response.output_audio.delta", **place, delta=delta, marks=here)

    async def cancel(self, reason: str) -> None:
        """End the answer under way, if there is one."""
        answer, self.answer = self.answer, None
        if answer is None or answer.task is None:
            return
        answer.task.cancel()
        place = {"response_id": answer.id, "item_id": answer.item, "output_index": 0, "content_index": 0}
        await self.close(answer, place, "", "cancelled", {"type": "cancelled", "reason": reason})

    async def close(
        self, answer: Answer, place: dict[str, Any], text: str, status: str, details: dict[str, Any] | None
    ) -> None:
        """End an answer, and its item if it has begun."""
        self.answer = None
        if item := self.items.get(answer.item):
            part = item["content"][0]
            name = TEXT_OF[part["type"]]
            kind = "output_audio_transcript" if name == "transcript" else "output_text"
            if name == "transcript":
                await self.tell("response.output_audio.done", **place)
            await self.tell(f"response.{kind}.done", **place, **{name: part[name]})
            where = {"response_id": answer.id, "output_index": 0}
            await self.tell("response.output_item.done", **where, item=item)
        response = {"id": answer.id, **UNDER_WAY, "status": status, "status_details": details}
        await self.tell("response.done", response=response)

    # -- what was heard

    async def truncate(self, event: dict[str, Any]) -> None:
        """Forget what was not heard."""
        part, ms = self.items[event["item_id"]]["content"][0], event["audio_end_ms"]
        if ms * RATE // 1000 > self.sent.get(event["item_id"], 0):
            error = {"type": "invalid_request_error", "code": "invalid_value", "message": "beyond the audio"}
            await self.tell("error", error={**error, "event_id": event["event_id"]})
            return
        count = int(len(part["transcript"]) * ms / 1000 / self.script.answer_s)
        part["transcript"] = part["transcript"][:count].rpartition(" ")[0]
        more = {"transcript": part["transcript"]} if self.script.marks else {}
        await self.tell(
            "conversation.item.truncated", item_id=event["item_id"], content_index=0, audio_end_ms=ms, **more
        )

    async def retrieve(self, event: dict[str, Any]) -> None:
        """Tell what an item is by now."""
        await self.tell("conversation.item.retrieved", item=self.items[event["item_id"]])
