"""A session without socket or bus: what it says is read back at once, and every event is checked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from apps.gateway.account import Position
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.protocols.realtime import Realtime, Unreadable
from apps.gateway.refusal import Refusal
from apps.gateway.session import Session
from apps.gateway.terms import Terms
from pipeline.messages import Cancel, Delta, Finished, Message, Turn
from pipeline.topics import CONTROL, REPLIES
from pipeline.voice import Sound
from tests.apps.gateway.checks import Event, Told
from tests.apps.gateway.harness import USAGE, settings

RATES: list[dict[str, Any]] = [{"name": "requests", "limit": 10, "remaining": 9, "reset_seconds": 0.1}]
PARTITION = 3


class Desk:
    """A session to play with. `told` has every event so far, `turns` and `cancels` what the stages would get."""

    def __init__(self, **changed: Any) -> None:
        self.settings = settings(**changed)
        self.metrics = GatewayMetrics(CollectorRegistry())
        terms = Terms("penstock-demo", PARTITION, self.settings, self.metrics, lambda: RATES)
        self.session = Session("sess_1", terms)
        hears = self.settings.audio.hears
        self.codec = Realtime(longest=self.settings.max_message_bytes, audio=20 << 20 if hears else 0)
        self.told = Told()
        self.turns: list[Turn] = []
        self.headers: list[Mapping[str, str]] = []
        self.keys: list[str] = []
        self.cancels: list[Cancel] = []
        self.sounds: list[Sound] = []
        self.offset = 0
        self.log: list[tuple[Position, Message]] = []
        self.session.open()
        self.pump()

    def frame(self, frame: str | bytes) -> list[Event]:
        """Receive a frame; returns what the client is told at once."""
        try:
            command = self.codec.receive(frame)
        except Unreadable as refusal:
            return [self.told.add(msgspec.json.decode(one)) for one in self.codec.complaint(refusal)]
        except Refusal as refusal:
            self.session.refuse(refusal)
        else:
            self.session.receive(command)
        return self.pump()

    def send(self, kind: str, **fields: Any) -> list[Event]:
        """Receive an event; returns what the client is told at once."""
        return self.frame(msgspec.json.encode({"type": kind, **fields}).decode())

    def say(self, text: str, **fields: Any) -> list[Event]:
        """Add what a user says."""
        content = [{"type": "input_text", "text": text}]
        return self.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content, **fields}
        )

    def ask(self, text: str = "hi", **response: Any) -> Turn:
        """Say something and ask for the answer; returns the turn."""
        self.say(text)
        self.send("response.create", response=response)
        return self.turns[-1]

    def delta(self, turn: Turn, at: int, text: str) -> list[Event]:
        """A piece of an answer comes."""
        return self.read(Delta(turn.session, turn.turn, at=at, text=text, index=0))

    def finish(self, turn: Turn, **fields: Any) -> list[Event]:
        """The end of an answer comes."""
        return self.read(
            Finished(turn.session, turn.turn, **{"status": "completed", "reason": "stop", "usage": USAGE, **fields})
        )

    def answer(self, turn: Turn, text: str = "yes") -> Event:
        """The whole answer comes; returns the response."""
        self.delta(turn, 0, text)
        return self.finish(turn, length=len(text))[-1]["response"]  # type: ignore[no-any-return]

    def read(self, message: Message) -> list[Event]:
        """A record comes from the log."""
        self.offset += 1
        decoded = REPLIES.decode(REPLIES.encode(message))
        self.log.append((Position(PARTITION, self.offset), decoded))
        made = self.session.read(Position(PARTITION, self.offset), decoded)
        return self._shown(made) + self.pump()

    def pump(self) -> list[Event]:
        """Read back what the session said."""
        shown: list[Event] = []
        for out in self.session.outgoing():
            if isinstance(out.message, Turn):
                self.turns.append(out.message)
                self.headers.append(out.headers)
                self.keys.append(out.key)
            elif isinstance(out.message, Sound):
                self.sounds.append(out.message)
                self.sound_headers = out.headers
            elif out.topic is CONTROL:
                assert isinstance(out.message, Cancel)
                self.cancels.append(out.message)
            else:
                assert out.partition == PARTITION
                shown += self.read(out.message)
        return shown

    def later(self, seconds: float) -> list[Event]:
        """Time passes."""
        self.session.tick(time.monotonic() + seconds)
        return self.pump()

    def _shown(self, made: Iterable[Event]) -> list[Event]:
        """Check events as the client gets them, through JSON."""
        return [self.told.add(msgspec.json.decode(frame)) for frame in self.codec.frames(made)]


def error_of(events: list[Event]) -> Mapping[str, Any]:
    """Return the one error in `events`."""
    (event,) = events
    assert event["type"] == "error"
    return event["error"]  # type: ignore[no-any-return]


def types(events: list[Event]) -> list[str]:
    """Return the kinds of `events`."""
    return [event["type"] for event in events]
