"""What an answer's text must look like: `text.format` as the Responses API has it, and regular expressions beside."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from apps.gateway.refusal import Refusal
from pipeline.messages import Grammar
from stages.llm.choosing.parameters import LONGEST_GRAMMAR

DEEPEST = 64
"""Levels that a schema may be nested: what is told of it has to be written and read by others, too."""


class PlainText(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Anything."""


class JsonObject(msgspec.Struct, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="json_schema"):
    """JSON that fits `schema`, always to the letter: `strict` is accepted, and so is a name."""

    schema: dict[str, Any]
    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET


class Pattern(msgspec.Struct, frozen=True, tag_field="type", tag="regex"):
    """Text that matches `pattern` as a whole, in the syntax of Rust's regex crate. An extension."""

    pattern: str


class TextOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the text of an answer is made."""

    format: PlainText | JsonObject | JsonSchema | Pattern | UnsetType | None = UNSET


def check_text(text: TextOptions | UnsetType | None, where: str) -> None:
    """Refuse what is too large. Whether it can be honoured is found out where the model is.

    Raises:
        Refusal: names the field under `where`.
    """
    kind = text.format if isinstance(text, TextOptions) else None
    param = f"{where}.text.format.{'pattern' if isinstance(kind, Pattern) else 'schema'}"
    if isinstance(kind, JsonSchema) and depth(kind.schema) > DEEPEST:
        raise Refusal("invalid_value", f"{param}: more than {DEEPEST} levels are nested", param=param)
    grammar = grammar_of(text)
    if grammar is not None and not 0 < len(grammar.text) <= LONGEST_GRAMMAR:
        raise Refusal("invalid_value", f"{param} has 1 to {LONGEST_GRAMMAR} characters", param=param)


def grammar_of(text: TextOptions | UnsetType | None) -> Grammar | None:
    """What the answer must match; None: nothing."""
    kind = text.format if isinstance(text, TextOptions) else None
    if isinstance(kind, JsonObject):
        return Grammar("json_schema", '{"type":"object"}')
    if isinstance(kind, JsonSchema):
        return Grammar("json_schema", msgspec.json.encode(kind.schema).decode())
    return Grammar("regex", kind.pattern) if isinstance(kind, Pattern) else None


def depth(value: Any) -> int:
    """Levels that are nested in `value`; looks at one more than `DEEPEST` at most."""
    levels, level = 0, [value]
    while (level := [one for one in level if isinstance(one, dict | list)]) and levels <= DEEPEST:
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        levels += 1
    return levels
