"""What a client can ask for: the client events of the Realtime API as types, and the one line of a chat.

Fields that we do not use are not listed, and are ignored where a client sends them. `UNSET` is a field that was not
sent, `None` one that was sent as null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from apps.gateway.formats import TextOptions
from apps.gateway.sound import Audio

Modality = Literal["text", "audio"]
Limit = int | Literal["inf"] | None
Stops = str | list[str] | None


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A client's event; `event_id` is the client's own name for it."""

    event_id: str | None = None


# -- session


class FunctionTool(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="function"):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET


class McpTool(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="mcp"):
    """A server of tools."""

    server_label: str
    server_url: str | UnsetType | None = UNSET
    server_description: str | UnsetType | None = UNSET


Tool = FunctionTool | McpTool


class ChooseFunction(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    """Call this function."""

    name: str


class ChooseMcp(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="mcp"):
    """Call a tool of this server."""

    server_label: str
    name: str | UnsetType | None = UNSET


ToolChoice = Literal["none", "auto", "required"] | ChooseFunction | ChooseMcp


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What can be said for a session and for one response. From `temperature` on these are extensions."""

    instructions: str | UnsetType | None = UNSET
    output_modalities: list[Modality] | UnsetType | None = UNSET
    max_output_tokens: Limit | UnsetType = UNSET
    audio: Audio | UnsetType | None = UNSET
    tools: list[Tool] | UnsetType | None = UNSET
    tool_choice: ToolChoice | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET
    top_p: float | UnsetType | None = UNSET
    top_k: int | UnsetType | None = UNSET
    min_p: float | UnsetType | None = UNSET
    repetition_penalty: float | UnsetType | None = UNSET
    presence_penalty: float | UnsetType | None = UNSET
    frequency_penalty: float | UnsetType | None = UNSET
    logit_bias: dict[str, float] | UnsetType | None = UNSET
    seed: int | UnsetType | None = UNSET
    stop: Stops | UnsetType = UNSET
    stop_ids: list[int] | UnsetType | None = UNSET
    logprobs: int | UnsetType | None = UNSET
    text: TextOptions | UnsetType | None = UNSET
    speculation: int | UnsetType | None = UNSET
    priority: int | UnsetType | None = UNSET


class SessionPatch(Options, frozen=True, kw_only=True, omit_defaults=True):
    """A change of the session. `model` and `tracing` are accepted and ignored."""

    type: Literal["realtime", "transcription"] | None = "realtime"
    truncation: str | dict[str, Any] | UnsetType | None = UNSET


class SessionUpdate(Command, frozen=True, kw_only=True, tag="session.update"):
    """Change the session; what is not named stays."""

    session: SessionPatch


# -- conversation


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's content."""

    type: str
    text: str | None = None
    transcript: str | None = None
    audio: str | None = None
    image_url: str | None = None


class SaidItem(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    """Something said."""

    role: Literal["system", "user", "assistant"]
    content: list[Part]
    id: str | None = None


class CallItem(msgspec.Struct, frozen=True, tag_field="type", tag="function_call"):
    """A call that the model made."""

    name: str
    arguments: str
    call_id: str | None = None
    id: str | None = None


class CallOutputItem(msgspec.Struct, frozen=True, tag_field="type", tag="function_call_output"):
    """What the call gave."""

    call_id: str
    output: str
    id: str | None = None


class ReferenceItem(msgspec.Struct, frozen=True, tag_field="type", tag="item_reference"):
    """An item of the conversation, in the input of one response."""

    id: str


NewItem = SaidItem | CallItem | CallOutputItem


class ItemCreate(Command, frozen=True, kw_only=True, tag="conversation.item.create"):
    """Add an item after another one; `root` is the beginning, none the end."""

    item: NewItem
    previous_item_id: str | None = None


class ItemDelete(Command, frozen=True, kw_only=True, tag="conversation.item.delete"):
    """Take an item away."""

    item_id: str


class ItemRetrieve(Command, frozen=True, kw_only=True, tag="conversation.item.retrieve"):
    """Say how an item stands."""

    item_id: str


class ItemTruncate(Command, frozen=True, kw_only=True, tag="conversation.item.truncate"):
    """Forget what was not heard of an answer."""

    item_id: str
    content_index: int
    audio_end_ms: int


# -- responses


class ResponseOptions(Options, frozen=True, kw_only=True, omit_defaults=True):
    """How to make one response."""

    conversation: Literal["auto", "none"] | None = "auto"
    metadata: dict[str, str] | None = None
    input: list[NewItem | ReferenceItem] | None = None


class ResponseCreate(Command, frozen=True, kw_only=True, tag="response.create"):
    """Answer."""

    response: ResponseOptions | None = None


class ResponseCancel(Command, frozen=True, kw_only=True, tag="response.cancel"):
    """Stop answering."""

    response_id: str | None = None


# -- audio, which is not there yet


class AudioAppend(Command, frozen=True, kw_only=True, tag="input_audio_buffer.append"):
    """A piece of audio, base64."""

    audio: str


class AudioCommit(Command, frozen=True, kw_only=True, tag="input_audio_buffer.commit"):
    """The audio so far is an item."""


class AudioClear(Command, frozen=True, kw_only=True, tag="input_audio_buffer.clear"):
    """Forget the audio so far."""


class OutputAudioClear(Command, frozen=True, kw_only=True, tag="output_audio_buffer.clear"):
    """Stop playing."""


AudioCommand = AudioAppend | AudioCommit | AudioClear | OutputAudioClear

RealtimeCommand = (
    SessionUpdate
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel
    | AudioCommand
)


class Say(Command, frozen=True, kw_only=True, tag="say"):
    """A line of a chat: an item and the wish for an answer in one."""

    text: str
