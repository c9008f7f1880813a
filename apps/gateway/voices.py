"""What a session's configuration says to the stages: how to listen to what comes in, and how an answer is spoken."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec import UNSET

from apps.gateway.commands import Options
from apps.gateway.sound import AudioOutput, VoiceId
from pipeline.messages import Encoding, Voice
from pipeline.voice import Detection, Eagerness, Listening

ENCODINGS: Mapping[str, Encoding] = MappingProxyType({"audio/pcm": "pcm16", "audio/pcmu": "pcmu", "audio/pcma": "pcma"})
EAGERNESS: Mapping[str, Eagerness] = MappingProxyType({"low": "low", "medium": "medium", "high": "high"})
AUTO: Eagerness = "medium"
"""What `auto` means."""

DEFAULT_VOICE = "default"
LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")
LONGEST_HINT = 1000
"""Characters of a prompt for the transcription that are used, the last ones: it goes with every piece of audio."""

TEXT, AUDIO = ["text"], ["audio"]


def modalities(asked: Sequence[str] | None, *, speaks: bool) -> list[str]:
    """What is answered in: audio, unless text alone is asked for; text where nothing `speaks`."""
    return [*AUDIO] if speaks and (not asked or "audio" in asked) else [*TEXT]


def listening(view: Mapping[str, Any]) -> Listening:
    """How to listen, by the `session` object that clients see."""
    audio = view["audio"]["input"]
    transcription = audio["transcription"] or {}
    language = LANGUAGE.match((transcription.get("language") or "").lower())
    return Listening(
        encoding=encoding(audio["format"]),
        detection=detection(audio["turn_detection"]),
        language=language[0] if language else "",
        hint=(transcription.get("prompt") or "")[-LONGEST_HINT:],
        partials=transcribes(view),
    )


def detection(told: Mapping[str, Any] | None) -> Detection | None:
    """How turns are found; None where the client says it."""
    if told is None:
        return None
    if told["type"] == "semantic_vad":
        return Detection(eagerness=EAGERNESS.get(told["eagerness"], AUTO))
    return Detection(told["threshold"], told["prefix_padding_ms"], told["silence_duration_ms"])


def transcribes(view: Mapping[str, Any]) -> bool:
    """Whether the client is told the words that it said."""
    return view["type"] == "transcription" or view["audio"]["input"]["transcription"] is not None


def _detected(view: Mapping[str, Any]) -> Mapping[str, Any]:
    return view["audio"]["input"]["turn_detection"] or {}


def interrupts(view: Mapping[str, Any]) -> bool:
    """Whether an answer ends where the user begins to speak."""
    return bool(_detected(view).get("interrupt_response"))


def answers(view: Mapping[str, Any]) -> bool:
    """Whether each turn of speech is answered."""
    return view["type"] == "realtime" and bool(_detected(view).get("create_response"))


def idle_timeout_ms(view: Mapping[str, Any]) -> int | None:
    """The silence after an answer that is answered; None: none is."""
    return _detected(view).get("idle_timeout_ms") if view["type"] == "realtime" else None


def voice(view: Mapping[str, Any], options: Options | None, *, speaks: bool) -> Voice | None:
    """How one response is spoken; None where it is text, as it is asked for or because nothing `speaks`."""
    asked = options.output_modalities if options is not None else UNSET
    if modalities(asked or view["output_modalities"], speaks=speaks) != AUDIO:
        return None
    kept = view["audio"]["output"]
    own = _own(options)
    name = own.voice.id if isinstance(own.voice, VoiceId) else own.voice or name_of(kept["voice"])
    kind = own.format.type if own.format else UNSET
    return Voice(
        "" if name == DEFAULT_VOICE else str(name),
        float(own.speed or kept["speed"]),
        ENCODINGS[kind] if kind else encoding(kept["format"]),
    )


def encoding(told: Mapping[str, Any]) -> Encoding:
    """The encoding of a format."""
    return ENCODINGS[told.get("type", "audio/pcm")]


def shown(spoken: Voice) -> dict[str, Any]:
    """A voice as a response shows it."""
    kind = next(kind for kind, known in ENCODINGS.items() if known == spoken.encoding)
    rate = {"rate": 24_000} if kind == "audio/pcm" else {}
    return {"output": {"format": {"type": kind, **rate}, "voice": spoken.name or DEFAULT_VOICE}}


def name_of(told: Any) -> str:
    """A voice's name, as it was given or by its id."""
    return str(told["id"] if isinstance(told, dict) else told)


def _own(options: Options | None) -> AudioOutput:
    """What a response says of its audio."""
    audio = options.audio if options is not None else UNSET
    return (audio and audio.output) or AudioOutput()
