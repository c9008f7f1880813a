"""The items of a conversation: made from what a client sends, kept as the client sees them, with their text beside."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

from apps.gateway.commands import CallItem, CallOutputItem, NewItem, Part, SaidItem
from apps.gateway.refusal import Refusal
from pipeline.messages import Role, Utterance
from stages.preprocess.text.clean import clean

LONGEST_ID = 256
MOST_PARTS = 256
OVERHEAD = 200
"""Bytes that an item counts beside its text."""

AUDIO = ("input_audio", "output_audio", "audio")
TEXT = ("input_text", "output_text", "text")


class Item(NamedTuple):
    """One item: `view` is what a client is shown, `role` and `text` are what the model is told."""

    id: str
    view: dict[str, Any]
    role: Role
    text: str

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.text.encode()) + OVERHEAD

    @property
    def utterance(self) -> Utterance:
        """What the model is told."""
        return Utterance(self.role, self.text)


def new_id(prefix: str) -> str:
    """A name that nothing else has."""
    return f"{prefix}_{secrets.token_hex(12)}"


def accepted(item: NewItem, *, max_text: int, where: str = "item", hears: bool = False) -> Item:
    """`item` as an item of the conversation; `max_text` is in bytes. Where somebody `hears`, it may have audio.

    Raises:
        Refusal: it cannot be one.
    """
    for name in ("id", "call_id", "name"):
        value = getattr(item, name, None)
        if value is not None and not 0 < len(value) <= LONGEST_ID:
            why = f"{where}.{name} has 1 to {LONGEST_ID} characters"
            raise Refusal("invalid_value", why, param=f"{where}.{name}")
    item_id = item.id or new_id("item")
    if isinstance(item, SaidItem):
        made = _said(item_id, item, where, hears=hears)
    elif isinstance(item, CallItem):
        made = _call(item_id, item)
    else:
        made = _output(item_id, item)
    if made.size - OVERHEAD > max_text:
        raise Refusal(
            "string_above_max_length",
            f"the item's text has {made.size - OVERHEAD} bytes; at most {max_text} are taken",
            param=f"{where}.{_place(item)}",
        )
    return made


def blank(text: str) -> bool:
    """Whether nothing is left of `text` once it is cleaned, as the model is told it."""
    return not clean(text).strip()


def answer(item_id: str, text: str, status: str, *, spoken: bool = False) -> Item:
    """An item of the model's."""
    part = {"type": "output_audio", "transcript": text} if spoken else {"type": "output_text", "text": text}
    return restored(_message(item_id, "assistant", [part] if status != "in_progress" or text else [], status))


def heard(item_id: str, transcript: str | None = None) -> Item:
    """An item that the user has spoken; None: what was said is not known yet."""
    return restored(_message(item_id, "user", [{"type": "input_audio", "transcript": transcript}]))


def transcribed(item: Item, transcript: str) -> Item:
    """`item` with what was said in it."""
    return _with_part(item, spoken_part(item), {"type": "input_audio", "transcript": transcript})


def cut(item: Item, transcript: str) -> Item:
    """An answer of which no more than this was heard."""
    return _with_part(item, spoken_part(item, "output_audio"), {"type": "output_audio", "transcript": transcript})


def spoken_part(item: Item, kind: str = "input_audio") -> int | None:
    """The index of the first part of `item` that is audio."""
    parts = item.view.get("content", ())
    return next((number for number, part in enumerate(parts) if part["type"] == kind), None)


def untranscribed(item: Item) -> bool:
    """Whether something was said in `item` that is not known yet."""
    number = spoken_part(item)
    return number is not None and item.view["content"][number]["transcript"] is None


def _with_part(item: Item, number: int | None, part: dict[str, Any]) -> Item:
    if number is None:
        return item
    content = [*item.view["content"]]
    content[number] = part
    return restored({**item.view, "content": content})


def restored(view: dict[str, Any]) -> Item:
    """The item that a client is shown as `view`."""
    if view["type"] == "function_call":
        return Item(view["id"], view, "assistant", f"[calls {view['name']}({view['arguments']})]")
    if view["type"] == "function_call_output":
        return Item(view["id"], view, "user", f"[result of the call: {view['output']}]")
    texts = (part.get("text") or part.get("transcript") or "" for part in view["content"])
    return Item(view["id"], view, view["role"], "\n".join(text for text in texts if text))


def _place(item: NewItem) -> str:
    if isinstance(item, SaidItem):
        return "content"
    return "arguments" if isinstance(item, CallItem) else "output"


def _message(item_id: str, role: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": content,
    }


def _said(item_id: str, item: SaidItem, where: str, *, hears: bool) -> Item:
    if len(item.content) > MOST_PARTS:
        raise Refusal("invalid_value", f"a message has at most {MOST_PARTS} parts", param=f"{where}.content")
    kind = "output_text" if item.role == "assistant" else "input_text"
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(item.content):
        if hears and item.role == "user" and is_sound(part):
            parts.append({"type": "input_audio", "transcript": None})
        else:
            parts.append({"type": kind, "text": _text(part, f"{where}.content[{number}]")})
    sounds = sum(part["type"] == "input_audio" for part in parts)
    if sounds > 1:
        raise Refusal("invalid_value", "a message has at most one part with audio", param=f"{where}.content")
    if not sounds and all(blank(part["text"]) for part in parts):
        raise Refusal("empty_text", "the message holds no text", param=f"{where}.content")
    return restored(_message(item_id, item.role, parts))


def is_sound(part: Part) -> bool:
    """Whether a part is audio, of which it is not known what is said in it."""
    return part.type in AUDIO and part.audio is not None


def _text(part: Part, where: str) -> str:
    """The text of a part; speech counts where only its transcript is given, as in a history told again."""
    if part.type in AUDIO and part.audio is None and part.transcript is not None:
        return part.transcript
    if part.type in AUDIO:
        why = "audio can be heard in what a user says, in an item of the conversation, where there is a speech stage"
        raise Refusal("audio_not_supported", f"{why}; send text", param=where)
    if part.type == "input_image":
        raise Refusal("image_not_supported", "images are not served yet; send text", param=where)
    if part.type not in TEXT:
        raise Refusal("invalid_value", f"no such content type; known: {', '.join(_known())}", param=f"{where}.type")
    if part.text is None:
        raise Refusal("missing_required_parameter", f"{where}.text is missing", param=f"{where}.text")
    return part.text


def _known() -> Iterator[str]:
    yield from TEXT
    yield from AUDIO
    yield "input_image"


def _call(item_id: str, item: CallItem) -> Item:
    view = {"id": item_id, "object": "realtime.item", "type": "function_call", "status": "completed"}
    view |= {"name": item.name, "arguments": item.arguments}
    if item.call_id is not None:
        view["call_id"] = item.call_id
    return restored(view)


def _output(item_id: str, item: CallOutputItem) -> Item:
    view = {"id": item_id, "object": "realtime.item", "type": "function_call_output", "status": "completed"}
    view |= {"call_id": item.call_id, "output": item.output}
    return restored(view)
