"""How a session's audio is configured: the `audio` object that clients see, merged with what they say, and checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UnsetType

from apps.gateway.choosing import ranged
from apps.gateway.refusal import Refusal
from apps.gateway.sound import Audio, ServerVad
from apps.gateway.voices import name_of

LONGEST_SILENCE_MS = 60_000
LONGEST_PADDING_MS = 1_000
LONGEST_IDLE_MS = 3_600_000

PCM = {"type": "audio/pcm", "rate": 24000}
VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_VAD = {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
DETECTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"server_vad": VAD, "semantic_vad": SEMANTIC_VAD})
AUDIO: dict[str, dict[str, Any]] = {
    "input": {"format": PCM, "noise_reduction": None, "transcription": None, "turn_detection": VAD},
    "output": {"format": PCM, "voice": "default", "speed": 1.0},
}


def fresh() -> dict[str, Any]:
    """The audio of a new session."""
    return copy.deepcopy(AUDIO)


def transcription_view(view: Mapping[str, Any]) -> dict[str, Any]:
    """The object that clients see of a session that only transcribes, as the session of `view` becomes it."""
    heard = {**view["audio"]["input"]}
    heard["transcription"] = heard["transcription"] or {"model": "default"}
    return {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": view["id"],
        "include": None,
        "expires_at": view["expires_at"],
        "audio": {"input": heard},
    }


def check_audio(audio: Audio | UnsetType | None, where: str) -> None:
    """Refuse numbers that cannot be.

    Raises:
        Refusal: names the option under `where`.
    """
    if audio and audio.output:
        ranged(audio.output.speed, 0.25, 1.5, f"{where}.audio.output.speed")
    vad = audio.input.turn_detection if audio and audio.input else None
    if isinstance(vad, ServerVad):
        path = f"{where}.audio.input.turn_detection"
        ranged(vad.threshold, 0.0, 1.0, f"{path}.threshold")
        ranged(vad.prefix_padding_ms, 0, LONGEST_PADDING_MS, f"{path}.prefix_padding_ms")
        ranged(vad.silence_duration_ms, 10, LONGEST_SILENCE_MS, f"{path}.silence_duration_ms")
        ranged(vad.idle_timeout_ms, 1, LONGEST_IDLE_MS, f"{path}.idle_timeout_ms")


def check_voice(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Keep the voice that was heard.

    Raises:
        Refusal: it would be another one.
    """
    if name_of(before["audio"]["output"]["voice"]) != name_of(after["audio"]["output"]["voice"]):
        why = "cannot update a conversation's voice if assistant audio is present"
        raise Refusal("cannot_update_voice", why, param="session.audio.output.voice")


def merged(audio: dict[str, Any], patch: Audio | None) -> dict[str, Any]:
    """`audio` with what `patch` names replaced, one level below input and output; null clears."""
    told: dict[str, Any] = dict.fromkeys(AUDIO) if patch is None else msgspec.to_builtins(patch)
    return {**audio, **{side: _changed(side, audio[side], given) for side, given in told.items()}}


def _changed(side: str, kept: dict[str, Any], told: dict[str, Any] | None) -> dict[str, Any]:
    """Null clears, except where something must stand; turn detection of the same type is merged."""
    if told is None:
        return AUDIO[side]
    defaults: dict[str, Any] = {"format": PCM, "voice": "default", "speed": 1.0}
    changed = {name: defaults.get(name) if value is None else value for name, value in told.items()}
    if detection := changed.get("turn_detection"):
        changed["turn_detection"] = _detection(kept["turn_detection"], detection)
    return {**kept, **changed}


def _detection(kept: dict[str, Any] | None, told: dict[str, Any]) -> dict[str, Any]:
    defaults = DETECTIONS[told["type"]]
    before = kept if kept and kept["type"] == told["type"] else defaults
    return {**before, **{name: defaults[name] if value is None else value for name, value in told.items()}}
