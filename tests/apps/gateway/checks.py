"""What must hold of everything that a Realtime client is told, whatever it did."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import msgspec
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

Event = Mapping[str, Any]

_adapter: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
OPENS = {
    "response.output_item.added": "response.output_item.done",
    "response.content_part.added": "response.content_part.done",
}
CLOSES = {done: added for added, done in OPENS.items()}


def validated(event: Event) -> Event:
    """Return `event`, which is one of the protocol's, by the SDK's own types and without conversions."""
    found = _adapter.validate_json(msgspec.json.encode(event), strict=True)
    assert found.type == event["type"]
    return event


class Told:
    """The events of one connection, checked one by one as they come; where `strict`, against the SDK's types, too."""

    def __init__(self) -> None:
        self.strict = True
        self.events: list[Event] = []
        self._ids: set[str] = set()
        self._open: dict[str, list[str]] = {}
        self._texts: dict[str, str] = {}
        self._items: set[str] = set()
        self._sounds: dict[str, bytes] = {}
        self._speech: str | None = None

    def add(self, event: Event) -> Event:
        """Check the next event against all before it."""
        if self.strict:
            validated(event)
        assert event["event_id"] not in self._ids, "an event id came twice"
        self._ids.add(event["event_id"])
        self.events.append(event)
        self._check_response(event)
        self._check_items(event)
        self._check_heard(event)
        return event

    def audio(self, item_id: str) -> bytes:
        """Return all that was heard of an item."""
        return self._sounds.get(item_id, b"")

    def _check_heard(self, event: Event) -> None:
        kind = event["type"]
        if kind == "input_audio_buffer.speech_started":
            self._speech = event["item_id"]
        elif kind == "input_audio_buffer.speech_stopped":
            assert self._speech in (None, event["item_id"]), "what stops is not what has started"
        elif kind.startswith("conversation.item.input_audio_transcription.") and not kind.endswith("delta"):
            assert event["item_id"] in self._items, "a transcript of no item"

    def _check_items(self, event: Event) -> None:
        if event["type"] == "conversation.item.added":
            previous = event["previous_item_id"]
            assert previous is None or previous in self._items, "previous_item_id dangles"
            assert previous is not None or not self._items or event["item"].get("id") not in self._items
            self._items.add(event["item"]["id"])

    def _check_response(self, event: Event) -> None:
        kind = event["type"]
        if kind == "response.created":
            assert event["response"]["status"] == "in_progress"
            assert event["response"]["id"] not in self._open
            self._open[event["response"]["id"]] = []
            return
        if kind == "response.done":
            self._check_done(event["response"])
            return
        if not kind.startswith("response."):
            return
        stack = self._open[event["response_id"]]
        if kind in OPENS:
            stack.append(kind)
        elif kind in CLOSES:
            assert stack.pop() == CLOSES[kind], "a part or item closes that is not the one open"
        elif kind in ("response.output_text.delta", "response.output_audio_transcript.delta"):
            assert stack[-1] == "response.content_part.added"
            assert event["delta"]
            self._texts[event["item_id"]] = self._texts.get(event["item_id"], "") + event["delta"]
        elif kind == "response.output_audio.delta":
            assert stack[-1] == "response.content_part.added"
            assert event["delta"]
            self._sounds[event["item_id"]] = self.audio(event["item_id"]) + b64decode(event["delta"], validate=True)
        elif kind == "response.output_text.done":
            assert event["text"] == self._texts.get(event["item_id"], "")
        elif kind == "response.output_audio_transcript.done":
            assert event["transcript"] == self._texts.get(event["item_id"], "")

    def _check_done(self, response: Mapping[str, Any]) -> None:
        assert self._open.pop(response["id"]) == [], "something was left open"
        assert response["status"] in ("completed", "cancelled", "incomplete", "failed")
        assert response["status_details"]["type"] == response["status"]
        assert response["usage"] is not None
        for item in response["output"]:
            self._check_output(item["content"][0], self._texts.get(item["id"], ""), response["status"])

    def _check_output(self, part: Mapping[str, Any], text: str, status: str) -> None:
        if part["type"] == "output_text":
            assert part["text"] == text
        else:
            assert text.startswith(part["transcript"])
            assert status in ("cancelled", "failed") or part["transcript"] == text

    def types(self) -> list[str]:
        """Return the kinds of all events so far."""
        return [event["type"] for event in self.events]
