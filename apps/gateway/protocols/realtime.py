"""The OpenAI Realtime protocol: frames in, commands out; events in, frames out. Knows no session and no socket."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from apps.gateway.commands import Command, RealtimeCommand
from apps.gateway.protocols.halves import half_in
from apps.gateway.refusal import Refusal

TYPES = tuple(sorted(kind.__struct_config__.tag for kind in get_args(RealtimeCommand)))
WITH_AUDIO = ("input_audio_buffer.append", "conversation.item.create")
LONGEST_NAME = 512
LONGEST_ECHO = 80


class Envelope(msgspec.Struct, frozen=True):
    """What every event has. Loose, so that a complaint can name even an event that is wrong in all else."""

    type: Any = None
    event_id: Any = None


class Unreadable(Refusal):
    """A frame that is no event at all, so the complaint goes out directly instead of through the log."""


_envelope = msgspec.json.Decoder(Envelope)
_command: msgspec.json.Decoder[Command] = msgspec.json.Decoder(RealtimeCommand)
_encoder = msgspec.json.Encoder()


class Realtime:
    """Reads and writes the frames of one connection.

    `longest` is the size of an event in characters, beside `audio` characters of those that may have audio.
    """

    name = "realtime"
    resumable = True

    def __init__(self, *, longest: int, audio: int = 0) -> None:
        self._longest, self._audio = longest, audio

    def receive(self, frame: str | bytes) -> Command:
        """The command in a frame.

        Raises:
            Unreadable: it is no JSON object.
            Refusal: it is no event that we know, or has something wrong in it.
        """
        try:
            envelope = _opened(frame)
        except Unreadable:
            if len(frame) <= self._longest:
                _check_halves(frame)
            raise
        event_id = envelope.event_id if isinstance(envelope.event_id, str) else None
        try:
            longest = self._longest + (self._audio if envelope.type in WITH_AUDIO else 0)
            if len(frame) > longest:
                raise Refusal("message_too_large", f"the event has {len(frame)} characters; at most {longest} are read")
            return _decoded(frame, envelope)
        except Refusal as refusal:
            raise refusal.about(event_id[:LONGEST_NAME] if event_id else None) from None

    def frames(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """One frame for each event."""
        return [_encoder.encode(event).decode() for event in events]

    def complaint(self, refusal: Refusal, event_id: str | None = None) -> list[str]:
        """What to send about a frame that nothing is known of."""
        return self.frames([{**error_event(refusal), "event_id": event_id or f"event_{secrets.token_hex(12)}"}])


def error_event(refusal: Refusal) -> dict[str, Any]:
    """The `error` event that tells a client of `refusal`, without an id."""
    error: dict[str, Any] = {
        "type": refusal.kind,
        "code": refusal.code,
        "message": refusal.message,
        "param": refusal.param,
        "event_id": refusal.event_id,
    }
    if refusal.retry_after is not None:
        error["retry_after"] = round(refusal.retry_after, 3)
    if refusal.reason is not None:
        error["reason"] = refusal.reason
    return {"type": "error", "error": error}


def _opened(frame: str | bytes) -> Envelope:
    if isinstance(frame, bytes):
        raise Unreadable("invalid_frame", "events are sent as text frames; this one is binary")
    try:
        return _envelope.decode(frame)
    except msgspec.ValidationError:
        raise Unreadable("invalid_event", "an event is a JSON object") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Unreadable("invalid_json", f"the frame is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("invalid_json", "the frame is nested too deeply") from None


def _check_halves(frame: str | bytes) -> None:
    """Refuse an event whose one fault is half a character, by its name."""
    half = half_in(frame) if isinstance(frame, str) else None
    if half is None:
        return
    path = half.path and half.path[:LONGEST_NAME]
    where = ": ".join(name[:LONGEST_ECHO] for name in (half.kind, path) if name) or "the event"
    why = f"{where}: {half.escape} is half a surrogate pair, and no character by itself"
    raise Refusal("invalid_value", why, param=path, event_id=half.event_id and half.event_id[:LONGEST_NAME])


def _decoded(frame: str | bytes, envelope: Envelope) -> Command:
    if not isinstance(envelope.type, str):
        raise Refusal("missing_required_parameter", "an event has a `type`, which is a string", param="type")
    if envelope.type not in TYPES:
        raise _unknown(envelope.type)
    if envelope.event_id is not None and not isinstance(envelope.event_id, str):
        raise Refusal("invalid_type", f"{envelope.type}: event_id must be a string", param="event_id")
    if envelope.event_id and len(envelope.event_id) > LONGEST_NAME:
        raise Refusal("string_above_max_length", f"event_id has more than {LONGEST_NAME} characters", param="event_id")
    try:
        return _command.decode(frame)
    except msgspec.ValidationError as error:
        raise _invalid(envelope.type, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Refusal("invalid_json", f"{envelope.type}: {error}") from None


def _unknown(name: str) -> Refusal:
    shown = name if len(name) <= LONGEST_ECHO else name[:LONGEST_ECHO] + "…"
    return Refusal("unknown_event", f"no such event: {shown!r}; known: {', '.join(TYPES)}", param="type")


def _invalid(name: str, why: str) -> Refusal:
    """`why` is msgspec's, which ends in the path to what is wrong."""
    what, _, path = why.partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    if missing := re.search(r"missing required field `(\w+)`", what):
        param = f"{param}.{missing[1]}".lstrip(".")
        return Refusal("missing_required_parameter", f"{name}: {param} is missing", param=param)
    code = "invalid_type" if re.match("Expected `[^`]*`(, got|$)", what) else "invalid_value"
    return Refusal(code, f"{name}: {param}: {what}", param=param or None)
