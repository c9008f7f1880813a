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


def accepted(item: NewItem, *, max_text: int, where: str = "item") -> Item:
    """`item` as an item of the conversation; `max_text` is in bytes.

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
        made = _said(item_id, item, where)
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


def answer(item_id: str, text: str, status: str) -> Item:
    """An item of the model's."""
    content = [{"type": "output_text", "text": text}] if status != "in_progress" or text else []
    return restored(_message(item_id, "assistant", content, status))


def restored(view: dict[str, Any]) -> Item:
    """The item that a client is shown as `view`."""
    if view["type"] == "function_call":
        return Item(view["id"], view, "assistant", f"[calls {view['name']}({view['arguments']})]")
    if view["type"] == "function_call_output":
        return Item(view["id"], view, "user", f"[result of the call: {view['output']}]")
    return Item(view["id"], view, view["role"], "\n".join(part["text"] for part in view["content"]))


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


def _said(item_id: str, item: SaidItem, where: str) -> Item:
    if len(item.content) > MOST_PARTS:
        raise Refusal("invalid_value", f"a message has at most {MOST_PARTS} parts", param=f"{where}.content")
    texts = [_text(part, f"{where}.content[{number}]") for number, part in enumerate(item.content)]
    if all(blank(text) for text in texts):
        raise Refusal("empty_text", "the message holds no text", param=f"{where}.content")
    kind = "output_text" if item.role == "assistant" else "input_text"
    view = _message(item_id, item.role, [{"type": kind, "text": text} for text in texts])
    return restored(view)


def _text(part: Part, where: str) -> str:
    """The text of a part; speech counts where only its transcript is given, as in a history told again."""
    if part.type in AUDIO and part.audio is None and part.transcript is not None:
        return part.transcript
    if part.type in AUDIO:
        raise Refusal("audio_not_supported", "audio is not served yet; send text", param=where)
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
