"""What an operator is shown of a message unasked: all but what a user said, of which only the size is told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipeline import errors, messages
from pipeline.errors import PenstockError
from pipeline.messages import DeadLetter, Message
from pipeline.topics import TOKENS

HARMLESS = frozenset({"type", "session", "turn", "role", "model", "reason"})
"""Fields of messages whose text is no user's."""

TELLING = 8
"""So many characters in a row that a user said are not repeated in a reason; nor is a whole text that is shorter."""

MOST_DUMPED = 4096
ROW = 16
TEXT = re.compile(rb"(?:[\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}){3,}")
"""Bytes that people can read: UTF-8 without control characters, three characters or more."""


def veiled(value: Any, name: str = "") -> Any:
    """A message as plain values, with sizes in place of all that a user may have said, token ids included."""
    if isinstance(value, str):
        return value if name in HARMLESS else f"({len(value)} characters)"
    if isinstance(value, Mapping):
        return {key: veiled(one, key) for key, one in value.items()}
    if isinstance(value, Sequence):
        numbers = value and all(isinstance(one, int) for one in value)
        return f"({len(value)} numbers)" if numbers else [veiled(one, name) for one in value]
    return value


def said(value: Any, name: str = "") -> Iterator[str]:
    """The texts that `veiled` leaves out."""
    if isinstance(value, str):
        if name not in HARMLESS:
            yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from said(one, key)
    elif isinstance(value, Sequence):
        for one in value:
            yield from said(one, name)


def discreet(dead: DeadLetter, message: Message | None, text: str | None = None, *, most: int = 500) -> str:
    """Why `dead` failed, or another `text` of it, with … where it repeats what the user said.

    Our own errors repeat nothing of that. Of another's, where the user's words are not there to compare, only the size
    is told.
    """
    kind, _, reason = dead.error.partition(": ")
    text = reason if text is None else text
    if issubclass(vars(errors).get(kind, object), PenstockError):
        return text[:most]
    if message is None or dead.topic == TOKENS.name:
        return f"({len(text)} characters)" if text else ""
    return without(text[:most], [one for one in said(msgspec.to_builtins(message)) if one])


def without(text: str, words: Sequence[str]) -> str:
    """`text` with … in place of what it has in common with `words`."""
    hidden = bytearray(len(text))
    everything = "\0".join(words)
    for at in range(len(text) - TELLING + 1):
        if text[at : at + TELLING] in everything:
            hidden[at : at + TELLING] = b"\1" * TELLING
    for word in {word for word in words if len(word) < TELLING}:
        for found in re.finditer(re.escape(word), text):
            hidden[found.start() : found.end()] = b"\1" * len(word)
    return "".join(("" if at and hidden[at - 1] else "…") if hidden[at] else letter for at, letter in enumerate(text))


def dump(value: bytes, *, veil: bool) -> Iterator[str]:
    """The first bytes of `value` in rows of offset, hexadecimal and characters; behind a `veil`, no text but our names.

    The structure is what tells why it could not be read.
    """
    names = _names()
    hidden = bytearray(len(value))
    for found in TEXT.finditer(value) if veil else ():
        if found.group() not in names:
            hidden[found.start() : found.end()] = b"\1" * len(found.group())
    for at in range(0, min(len(value), MOST_DUMPED), ROW):
        row = [(byte, hidden[at + place]) for place, byte in enumerate(value[at : at + ROW])]
        hexadecimal = " ".join("··" if veiled else f"{byte:02x}" for byte, veiled in row)
        letters = "".join("·" if veiled or not 0x20 <= byte < 0x7F else chr(byte) for byte, veiled in row)
        yield f"{at:06x}  {hexadecimal:<{3 * ROW}} {letters}"
    if len(value) > MOST_DUMPED:
        yield f"... and {len(value) - MOST_DUMPED:,} bytes more"


def _names() -> frozenset[bytes]:
    """The field names of the vocabulary, as they stand in a message."""
    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    return frozenset({b"type", *(name.encode() for kind in kinds for name in kind.__struct_fields__)})
