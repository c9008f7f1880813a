"""What a client says of sound: formats, turn detection, transcription, voices. Part of the options in `commands.py`."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class AudioFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """Format of audio."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] | UnsetType = UNSET
    rate: Literal[24000] | UnsetType | None = UNSET


class NoiseReduction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which microphone's noise to take away."""

    type: Literal["near_field", "far_field"] | UnsetType | None = UNSET


class Transcription(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to transcribe; any model name is accepted."""

    model: str | UnsetType | None = UNSET
    language: str | UnsetType | None = UNSET
    prompt: str | UnsetType | None = UNSET


class ServerVad(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="server_vad"):
    """Turns end after a silence."""

    threshold: float | UnsetType | None = UNSET
    prefix_padding_ms: int | UnsetType | None = UNSET
    silence_duration_ms: int | UnsetType | None = UNSET
    idle_timeout_ms: int | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class SemanticVad(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="semantic_vad"):
    """Turns end where the speaker seems to have finished."""

    eagerness: Literal["low", "medium", "high", "auto"] | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class VoiceId(msgspec.Struct, frozen=True):
    """A voice by its id."""

    id: str


class AudioInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client says of the audio it sends."""

    format: AudioFormat | UnsetType | None = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    transcription: Transcription | UnsetType | None = UNSET
    turn_detection: ServerVad | SemanticVad | UnsetType | None = UNSET


class AudioOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client says of the audio it wants; any voice is accepted."""

    format: AudioFormat | UnsetType | None = UNSET
    voice: str | VoiceId | UnsetType | None = UNSET
    speed: float | UnsetType | None = UNSET


class Audio(msgspec.Struct, frozen=True, omit_defaults=True):
    """Audio in and out."""

    input: AudioInput | UnsetType | None = UNSET
    output: AudioOutput | UnsetType | None = UNSET
