"""How a session is configured: the `session` object that clients see, and what of it makes a turn's sampling."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET

from apps.gateway.audio_config import check_audio, check_voice, fresh, merged, transcription_view
from apps.gateway.choosing import EXTENSIONS, check_choosing, ranged, sampling_of
from apps.gateway.commands import FunctionTool, Options, SessionPatch
from apps.gateway.formats import DEEPEST, depth
from apps.gateway.refusal import Refusal
from apps.gateway.settings import GatewaySettings
from apps.gateway.voices import modalities
from pipeline.messages import Sampling

MOST_TOKENS = 4096
CLEARED: Mapping[str, Any] = MappingProxyType(
    {"instructions": "", "tools": [], "tool_choice": "auto", "max_output_tokens": "inf", "truncation": "auto"}
)
"""What null makes of a field."""


class SessionConfig:
    """The configuration of one session; `view` is the object that clients see."""

    def __init__(
        self, settings: GatewaySettings, *, session: str, model: str, expires_at: int, speaks: bool = False
    ) -> None:
        self._settings, self.speaks = settings, speaks
        self.view: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": session,
            "model": model,
            "output_modalities": modalities(None, speaks=speaks),
            "instructions": settings.instructions,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "include": None,
            "expires_at": expires_at,
            "audio": fresh(),
        }

    @property
    def transcription(self) -> bool:
        """Whether the session only transcribes."""
        return bool(self.view["type"] == "transcription")

    def only_transcribe(self) -> None:
        """Make the session one that only transcribes."""
        self.view = transcription_view(self.view)

    def update(self, patch: SessionPatch, *, spoke: bool = False) -> None:
        """Take over what `patch` names; null, "" and [] clear. `spoke` says that a voice was heard already.

        Raises:
            Refusal: something cannot be; then nothing is taken over.
        """
        check_audio(patch.audio, "session")
        if self.transcription or patch.type == "transcription":
            self._update_transcription(patch)
            return
        if patch.truncation and patch.truncation != "auto":
            why = "the oldest is left out of a long conversation as it must be: truncation is always 'auto'"
            raise Refusal("truncation_not_supported", why, param="session.truncation")
        self._check(patch, "session")
        view = {**self.view}
        _check_depth(patch)
        for name, default in CLEARED.items():
            if (value := getattr(patch, name)) is not UNSET:
                view[name] = default if value is None else msgspec.to_builtins(value)
        for name in EXTENSIONS:
            if (value := getattr(patch, name)) is not UNSET:
                view[name] = msgspec.to_builtins(value)
        if patch.output_modalities is not UNSET:
            view["output_modalities"] = modalities(patch.output_modalities, speaks=self.speaks)
        if patch.audio is not UNSET:
            view["audio"] = merged(view["audio"], patch.audio)
        if spoke:
            check_voice(self.view, view)
        _check_size(view, self._settings.max_conversation_bytes)
        self.view = view

    def _update_transcription(self, patch: SessionPatch) -> None:
        """Take over how to listen, which is all there is, or becomes all."""
        view = {**self.view} if self.transcription else transcription_view(self.view)
        if patch.audio is not UNSET:
            view["audio"] = {"input": merged({**fresh(), **view["audio"]}, patch.audio)["input"]}
        _check_size(view, self._settings.max_conversation_bytes)
        self.view = view

    def sampling(self, options: Options | None) -> Sampling:
        """How to choose the tokens of one response.

        Raises:
            Refusal: `options` ask for what cannot be.
        """
        if options is not None:
            check_audio(options.audio, "response")
            self._check(options, "response")
        said = {name: _first(options, name, self.view) for name in (*EXTENSIONS, "max_output_tokens")}
        return sampling_of(said, self._settings)

    def instructions(self, options: Options | None) -> str:
        """The system prompt of one response."""
        if options is not None and isinstance(options.instructions, str):
            return options.instructions
        return str(self.view["instructions"])

    def limit(self, options: Options | None) -> int | str:
        """The `max_output_tokens` that a response shows."""
        asked = options.max_output_tokens if options is not None else UNSET
        chosen: int | str = self.view["max_output_tokens"] if asked in (UNSET, None) else asked
        return chosen

    def _check(self, options: Options, where: str) -> None:
        check_choosing(options, self._settings, where)
        if options.tool_choice and options.tool_choice not in ("auto", "none"):
            why = "no functions are called yet, so that none can be demanded"
            raise Refusal("tools_not_supported", why, param=f"{where}.tool_choice")
        if options.max_output_tokens != "inf":
            ranged(options.max_output_tokens, 1, MOST_TOKENS, f"{where}.max_output_tokens")
        if isinstance(options.instructions, str) and len(options.instructions.encode()) > self._settings.max_text_bytes:
            raise Refusal(
                "string_above_max_length",
                f"instructions have at most {self._settings.max_text_bytes} bytes",
                param=f"{where}.instructions",
            )


def _first(options: Options | None, name: str, view: dict[str, Any]) -> Any:
    """What the response says, else what the session says."""
    value = getattr(options, name, UNSET)
    return view.get(name) if value is UNSET or value is None else value


def _check_depth(patch: SessionPatch) -> None:
    for number, tool in enumerate(patch.tools or []):
        if isinstance(tool, FunctionTool) and depth(tool.parameters) > DEEPEST:
            where = f"session.tools[{number}].parameters"
            raise Refusal("invalid_value", f"{where}: more than {DEEPEST} levels are nested", param=where)


def _check_size(view: dict[str, Any], most: int) -> None:
    """The log takes no integer beyond 64 bits, and no large record."""
    try:
        size = len(msgspec.msgpack.encode(view))
    except (OverflowError, ValueError) as error:
        raise Refusal("invalid_value", f"session: {error}", param="session") from None
    if size > most:
        raise Refusal("invalid_value", f"the session has {size} bytes; at most {most} are taken", param="session")
