"""How far a session's audio stands in the log, as who takes it over must know to the sample.

What the replies tell of it is a few seconds old: so the audio itself is read that came since.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from apps.gateway.history import History
from apps.gateway.speaking import MS, samples
from pipeline.bus import Bus, Record
from pipeline.errors import UndecodableMessage
from pipeline.topics import AUDIO
from pipeline.voice import Sound

BEFORE_S, AFTER_S = 2.0, 20.0
"""Seconds about the last note in which the last of the audio stands, and what ended it: of later things, and of more
audio, the log is told."""

Reached = tuple[str, int]
"""(stream, position): as in `Told.audio`; no stream where that was ended."""


async def reached(bus: Bus, history: History, session: str, stream: str, noted_at: float) -> Reached | None:
    """How far `stream` stands in the log, of which that was noted last at `noted_at` (seconds since 1970).

    None where nothing of it is there any more. Whole milliseconds, for that is what clients are told: the speech stage
    hears once what comes twice.

    Raises:
        BusUnavailable: the log could not be read in time.
    """
    part = await bus.part_of(AUDIO.name, session)
    start = await bus.offset_at(part, round((noted_at - BEFORE_S) * 1000))
    past = noted_at + AFTER_S < time.time()
    end = await bus.offset_at(part, round((noted_at + AFTER_S) * 1000)) if past else None
    found = await history.read(part, session, start, end)
    while not found.whole:  # more than is read back at once: what counts is the last of it
        found = await history.read(part, session, found.records[-1].offset, end)
    return last_of(found.records, stream)


def last_of(records: Iterable[Record], stream: str) -> Reached | None:
    """How far `stream` comes in `records`; None if nothing of it is there."""
    position: int | None = None
    ended = False
    for record in records:
        try:
            sound: Sound = AUDIO.decode(record.value)
        except UndecodableMessage:
            continue
        if sound.turn == stream:
            position = max(position or 0, sound.at + samples(sound.data, sound.how.encoding))
            ended = ended or sound.then == "end"
    return None if position is None else ("" if ended else stream, position // MS * MS)
