"""A recording that is spoken into a session in real time, and again from where the gateway has not got it.

A client is not told how much of its audio has arrived, until it comes back to its session: then `input_audio_ms` says
how much stands in the log. So it keeps the last half minute.
"""

from __future__ import annotations

import asyncio
import base64
import time

from apps.chaos.line import Line, SessionLost
from pipeline.voice import RATE

PIECE = RATE // 20
"""Samples that are sent at once: 50 ms."""
KEPT = 30 * RATE
"""Samples that are kept, to be sent again."""
MS = RATE // 1000
WIDE = 2
"""Bytes of a sample."""


class Mouth:
    """Speaks `sound` (PCM16 at 24 kHz), and silence after it, over `line`; a sample is sent no earlier than it is said.

    `again` counts the samples that were sent more than once.
    """

    def __init__(self, sound: bytes, line: Line) -> None:
        self._sound, self._line = sound, line
        self._may = asyncio.Event()
        self._begun = 0.0
        self._sent = self._furthest = 0
        self.again = 0

    @property
    def over(self) -> float:
        """When all of the recording has been said, or will be (`time.monotonic`)."""
        return self._begun + len(self._sound) / WIDE / RATE

    def begin(self) -> None:
        """Speak from now on."""
        self._begun = time.monotonic()
        self._may.set()

    def hold(self) -> None:
        """The connection is another one: wait until it is known what has arrived."""
        self._may.clear()

    def go_on(self, position: int) -> None:
        """The first `position` samples stand in the log.

        Raises:
            SessionLost: the next ones are not kept any more, or have not been said yet.
        """
        if position > self._furthest:
            raise SessionLost(f"{position} samples are said to be there, of {self._furthest} that were sent")
        if position < self._furthest - KEPT:
            raise SessionLost(f"{self._furthest - position} samples are to be sent again; {KEPT} are kept")
        self.again += max(0, self._sent - position)
        self._sent = position
        self._may.set()

    async def run(self) -> None:
        """Speak for ever."""
        while True:
            await self._may.wait()
            await asyncio.sleep(self._begun + (self._sent + PIECE) / RATE - time.monotonic())
            if self._may.is_set():
                await self._say()

    async def _say(self) -> None:
        piece = self._sound[self._sent * WIDE : (self._sent + PIECE) * WIDE].ljust(PIECE * WIDE, b"\0")
        self._sent += PIECE
        self._furthest = max(self._furthest, self._sent)
        await self._line.put({"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode("ascii")})
