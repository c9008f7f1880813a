"""Streams of audio: their names, and what a client's base64 is in them, and how much may be."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator

from apps.gateway.refusal import Refusal
from pipeline.voice import RATE

STREAM = "audio"
PIECE = 64 * 1024
"""Bytes of a record at most."""
SHORTEST = RATE // 10
"""Samples that make a turn."""
LONGEST = 240 * RATE
"""Samples that a turn has at most which the client ends: the speech stage keeps no more."""
BEHIND_S = 90.0
"""Seconds that what waits may take to go on; meanwhile no more is taken, which would be kept in memory."""


def aside(item: str) -> str:
    """The name of the stream in which the audio of `item` is, which came with the item itself."""
    return f"{STREAM}.{item}"


def is_stream(turn: str) -> bool:
    """Whether that is a stream of audio, and no response."""
    return turn.startswith(STREAM)


def decoded(audio: str, most: int, where: str) -> bytes:
    """The bytes of `audio`, which is base64.

    Raises:
        Refusal: it is not, or has more than `most` bytes.
    """
    if len(audio) // 4 * 3 - 2 > most:
        why = f"{where} has {len(audio) // 4 * 3} bytes of audio; at most {most} are taken at once"
        raise Refusal("message_too_large", why, param=where)
    try:
        return b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("invalid_value", f"{where} is not base64: {error}", param=where) from None


def pieces(data: bytes) -> Iterator[bytes]:
    """The records that `data` goes in."""
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))
