"""A recording is spoken in real time, and again from where it had not arrived."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from typing import Any, cast

import pytest

from apps.chaos import mouth as module
from apps.chaos.line import Line, SessionLost
from apps.chaos.mouth import PIECE, Mouth
from pipeline.voice import RATE

SOUND = bytes(range(256)) * (RATE // 320)
"""400 ms of something, of which no two pieces are the same."""


def sent(events: list[dict[str, Any]]) -> bytes:
    """The sound in these events."""
    return b"".join(b64decode(event["audio"]) for event in events if event["type"] == "input_audio_buffer.append")


class Listening:
    """Takes what is put in."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    async def put(self, event: dict[str, Any]) -> None:
        """Take an event."""
        self.events.append(event)


async def spoken(mouth: Mouth, seconds: float) -> None:
    """Let it speak for so long."""
    speaking = asyncio.create_task(mouth.run())
    await asyncio.sleep(seconds)
    speaking.cancel()
    await asyncio.wait([speaking])


async def test_it_is_spoken_as_fast_as_it_is_heard() -> None:
    """And silence comes after it."""
    line = Listening()
    mouth = Mouth(SOUND[:9600], cast(Line, line))
    began = time.monotonic()
    mouth.begin()
    await spoken(mouth, 0.4)

    said = sent(line.events)
    assert 2 * PIECE * 2 <= len(said) <= (time.monotonic() - began) * RATE * 2
    assert said == SOUND[:9600].ljust(len(said), b"\0")[: len(said)]
    assert mouth.over == pytest.approx(began + 0.2, abs=0.05)


async def test_it_goes_on_from_where_it_is_told_and_at_once() -> None:
    """What is late is not waited for again; while it is held, nothing is said."""
    line = Listening()
    mouth = Mouth(SOUND, cast(Line, line))
    mouth.begin()
    await spoken(mouth, 0.3)
    mouth.hold()
    held = len(line.events)
    await spoken(mouth, 0.1)
    assert len(line.events) == held

    mouth.go_on(PIECE)
    again = mouth.again
    await spoken(mouth, 0.1)

    assert again == (held - 1) * PIECE
    assert len(line.events) > held + held - 2
    assert sent(line.events[held:])[: 2 * PIECE] == SOUND[2 * PIECE : 4 * PIECE]


async def test_no_more_is_asked_for_than_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was never said, nor what no client would have kept."""
    mouth = Mouth(SOUND, cast(Line, Listening()))
    mouth.begin()
    await spoken(mouth, 0.25)

    with pytest.raises(SessionLost, match="are said to be there"):
        mouth.go_on(RATE)
    monkeypatch.setattr(module, "KEPT", PIECE)
    with pytest.raises(SessionLost, match="are to be sent again"):
        mouth.go_on(0)
