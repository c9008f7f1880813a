"""What is known of the audio that comes in, for a snapshot; positions are samples at 24 kHz."""

from __future__ import annotations

from typing import Any

import msgspec

from apps.gateway import events
from apps.gateway.events import Event
from apps.gateway.speaking import MS
from pipeline.messages import Problem
from pipeline.voice import RATE, Transcribed

MOST_TURNS = 64
"""Turns whose transcript is awaited; of more, the oldest are forgotten."""
MOST_OVER = 64
"""Turns that are remembered to be over."""
MOST_EARLY = 8
"""Transcripts that may come before the item that they belong to."""
FRAMES = RATE // 10
"""By less than that the speech stage may take the place of a commit to be earlier, for it hears in frames."""
SILENT = Problem("transcription_failed", "the stream of audio has ended before its transcript was there")


class Heard(msgspec.Struct, omit_defaults=True):
    """A turn of speech on its way: found by its sound (`auto`), or what the client has committed.

    `ended` says that it is an item of the conversation, of which `chars` of the transcript were told so far. `left`
    says that the client has forgotten what it has begun with: it is one only if it had ended before that. `at` is where
    it has begun, or was committed; the speech stage calls it by its `alias`, if it has one.
    """

    item: str
    stream: str = ""
    auto: bool = False
    ended: bool = False
    chars: int = 0
    left: bool = False
    at: int = 0
    alias: str = ""

    @property
    def begun(self) -> bool:
        """Whether it is being said."""
        return not self.ended and not self.left

    @property
    def name(self) -> str:
        """What the speech stage calls it."""
        return self.alias or self.item


class Hearing(msgspec.Struct, omit_defaults=True):
    """All that is known of what is heard, for a snapshot.

    `stream` is the stream that the audio is in, and `position` how far the audio has come at least. `wanted` is a
    response that waits until it can begin, and so are those `beside` the conversation. `heard_to` is where the last
    turn that was found ended, in which stream. `begins` is where that begins which is no turn yet, `noted_at` when the
    log was told of the position, and `cleared` up to where the client has forgotten all.
    """

    stream: str = ""
    position: int = 0
    turns: dict[str, Heard] = {}
    over: tuple[str, ...] = ()
    early: dict[str, Transcribed] = {}
    wanted: dict[str, Any] | None = None
    heard_to: tuple[str, int] = ("", 0)
    begins: int = 0
    noted_at: float = 0.0
    beside: tuple[dict[str, Any], ...] = ()
    cleared: int = 0


def speech_stopped(turn: Heard, at: int) -> Event:
    """That `turn` is not said any further than position `at`."""
    return events.heard("speech_stopped", turn.item, audio_end_ms=at // MS)
