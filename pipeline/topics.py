"""The route: a topic is a name, the types it carries, and how long it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from pipeline.errors import UndecodableMessage
from pipeline.messages import (
    Cancel,
    Claimed,
    DeadLetter,
    Delta,
    Done,
    Finished,
    Message,
    Prompt,
    Snapshot,
    Tokens,
    Told,
    Turn,
)
from pipeline.voice import Sentence, Sound, SpeechStarted, SpeechStopped, Spoken, Transcribed, Transcript

HOUR_MS = 3_600_000


class Topic:
    """A named log and the types of message in it.

    `partitions` is None where the deployment chooses (one number for all such topics, so that the same key has the same
    partition everywhere). `keep_ms` is the retention in milliseconds.
    """

    def __init__(self, name: str, *types: type[Message], keep_ms: int = 24 * HOUR_MS, partitions: int | None = None):
        self.name = name
        self.types = types
        self.keep_ms = keep_ms
        self.partitions = partitions
        union: Any = types[0]
        for other in types[1:]:
            union = union | other
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(union)
        self._encoder = msgspec.msgpack.Encoder()

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"

    def encode(self, message: Message) -> bytes:
        """The bytes of `message` on the wire."""
        return self._encoder.encode(message)

    def decode(self, value: bytes) -> Any:
        """The message in `value`.

        Raises:
            UndecodableMessage: the bytes are none of the topic's types.
        """
        try:
            return self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UndecodableMessage(self.name, str(error)) from error


AUDIO = Topic("audio", Sound, keep_ms=HOUR_MS)
TURNS = Topic("turns", Turn)
PROMPTS = Topic("prompts", Prompt)
TOKENS = Topic("tokens", Tokens, Done)
SPEECH_OUT = Topic("speech-out", Sentence, keep_ms=HOUR_MS)
HEARD = (SpeechStarted, SpeechStopped, Transcript, Transcribed)
REPLIES = Topic("replies", Delta, Finished, *HEARD, Spoken, Told, Claimed, Snapshot)
CONTROL = Topic("control", Cancel, keep_ms=HOUR_MS, partitions=1)
DEAD_LETTERS = Topic("dead-letters", DeadLetter, keep_ms=14 * 24 * HOUR_MS, partitions=1)

ROUTE = (AUDIO, TURNS, PROMPTS, TOKENS, SPEECH_OUT, REPLIES, CONTROL, DEAD_LETTERS)

TOPIC_OF: Mapping[type[Message], Topic] = MappingProxyType({kind: topic for topic in ROUTE for kind in topic.types})
