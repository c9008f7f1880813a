"""The part of the vocabulary that is about sound: what is heard and what is spoken. See `messages.py`.

Positions are samples at 24 kHz whatever the encoding: a sample of G.711, at 8 kHz, counts three. A session's audio is
one stream that goes on as long as the session; its messages have the stream's name as their `turn`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.messages import Encoding, Message, Problem, Voice

RATE = 24_000
"""Samples in a second."""

Eagerness = Literal["low", "medium", "high"]


class Detection(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to find the turns in a stream: speech is where its probability is at least `threshold`.

    A turn begins `padding_ms` before its speech and ends after `silence_ms` of none; with an `eagerness` instead as
    soon as the words seem complete, and else after at most 8, 4 or 2 seconds.
    """

    threshold: float = 0.5
    padding_ms: int = 300
    silence_ms: int = 500
    eagerness: Eagerness | None = None


class Listening(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to listen to a stream. Without a `detection` a turn ends where the gateway says.

    `language` is a code like `en` ("": find out), `hint` text that the words may be like. `partials` asks for words
    before the turn ends.
    """

    encoding: Encoding = "pcm16"
    detection: Detection | None = None
    language: str = ""
    hint: str = ""
    partials: bool = True


class Sound(Message, frozen=True):
    """gateway → speech: audio of a stream, the first sample of which is its sample number `at`; and what comes then.

    `commit` ends a turn here, which will be `item`; `clear` forgets what came since the last turn; `end` ends the
    stream, and a turn in it that has begun. Every piece says how to listen, so that any can be the first that is read.
    """

    at: int
    data: bytes = b""
    how: Listening = Listening()
    then: Literal["", "commit", "clear", "end"] = ""
    item: str = ""


class Word(msgspec.Struct, frozen=True):
    """A word, with the white space before it, from position `start` to `end`."""

    text: str
    start: int
    end: int


class SpeechStarted(Message, frozen=True):
    """speech → gateway: turn `item` has begun at `at`, its padding included."""

    item: str
    at: int


class SpeechStopped(Message, frozen=True):
    """speech → gateway: turn `item` has ended at `at`."""

    item: str
    at: int


class Transcript(Message, frozen=True):
    """speech → gateway: the next words of turn `item`, after `at` characters; they will hardly change any more."""

    item: str
    at: int
    text: str
    words: tuple[Word, ...] = ()


class Transcribed(Message, frozen=True):
    """speech → gateway: all that was said in turn `item`, which was `samples` long; `problem` says why it is unknown.

    The one last word of a turn. What was not speech has no text.
    """

    item: str
    text: str
    words: tuple[Word, ...] = ()
    samples: int = 0
    language: str = ""
    problem: Problem | None = None


class Sentence(Message, frozen=True):
    """postprocess → speak: piece number `index` of an answer to be spoken, which begins after `at` characters of it.

    `since` is when it was said, in seconds since 1970, so that who speaks it again later knows what has been due; the
    `last` may have no text.
    """

    index: int
    at: int
    text: str
    voice: Voice = Voice()
    since: float = 0.0
    last: bool = False


class Spoken(Message, frozen=True):
    """speak → gateway: audio of an answer, encoded as was asked for, the first sample of which is number `at`.

    `marks` are (characters of the answer, position) pairs: so much of the answer has been spoken there. The `last` may
    have no audio, and says in `problem` why the answer was not spoken to its end.
    """

    at: int
    data: bytes = b""
    marks: tuple[tuple[int, int], ...] = ()
    last: bool = False
    problem: Problem | None = None
