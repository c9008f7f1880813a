"""Where speech begins, pauses and ends: by how probable it is in each frame, with hysteresis as Silero has it."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.voice import RATE, Detection
from stages.preprocess.speech.ear import FRAME, Frame
from stages.preprocess.speech.hint import soonest_ms, wait_ms

MANUAL = Detection()
"""How speech is told from silence where turns are ended by hand."""

BEGIN_FRAMES = 2
"""Frames in a row with speech that begin it: what is shorter than 64 ms is a knock."""

LINGER_FRAMES = 2
"""More such frames that it takes where a client has cut speech off: so many may still sound of what came before."""

SLACK = 0.15
"""How far below the threshold speech that goes on may be."""

MOST_PADDING = RATE
"""Positions before its speech with which a turn begins at most."""

TRAIL_MS = 45
"""By so much the last frame in which Silero finds speech ends after the speech.

That is the median over espeak's voices, with little noise or none; 28 to 61 ms are the 5th and the 95th percentile.
"""

SOONEST_QUIET, QUIET = 3 * FRAME, 7 * FRAME
"""Silence, in positions, after which it is asked what was said, in case that was all: half of what ends the turn, but

at least 96 ms, which a stop consonant lasts, and at most 224 ms.
"""

PAUSE = 10 * FRAME
"""Silence at which a piece that is long enough is closed: 320 ms."""

SHORT_PAUSE = 4 * FRAME
"""Silence at which one is closed that is half as long as can be: better there than in the middle of what follows."""

LONG_PAUSE = RATE
"""Silence at which any piece is closed."""


def ms(count: int) -> int:
    """Milliseconds as positions."""
    return count * RATE // 1000


class Voice:
    """Follows the frames of a stream; `last` is where there was speech last.

    Args:
        cut: Whether a client has just ended or forgotten what was said, maybe in the middle of a word.
    """

    def __init__(self, *, cut: bool = False) -> None:
        self.last = 0
        self.begun = 0
        self._needed = BEGIN_FRAMES + (LINGER_FRAMES if cut else 0)
        self._run = 0
        self._going = False

    def hear(self, frame: Frame, threshold: float) -> bool:
        """Whether there is speech in the next `frame`; `begun` is the number of frames ago that it began, or 0."""
        loud = frame.voice >= threshold
        self._run = self._run + 1 if loud else 0
        self._going = loud or (self._going and frame.voice >= max(threshold - SLACK, 0.01))
        if self._going:
            self.last = frame.end
        else:
            self._needed = BEGIN_FRAMES
        self.begun = self._needed if self._run >= self._needed else 0
        return self._going


class Limits(NamedTuple):
    """How a turn ends: after `soonest` positions of silence at the earliest, then as `detection` says.

    After `quiet` it is worth to ask what was said, so that this is known when the turn ends.
    """

    quiet: int
    soonest: int
    detection: Detection

    def reached(self, silence: int, said: str | None, language: str) -> bool | None:
        """Whether the turn is over after so much silence; None if one must know for that what was `said`."""
        if silence < self.soonest:
            return False
        if self.detection.eagerness is None:
            return True
        if said is None:
            return None
        return silence >= heard(wait_ms(self.detection.eagerness, said, language))


def heard(silence_ms: int) -> int:
    """After so much silence, in positions, in the network's ears there were about `silence_ms` of it: whole frames."""
    return max(round(ms(silence_ms - TRAIL_MS) / FRAME), 1) * FRAME


def limits(detection: Detection) -> Limits:
    """Those of `detection`."""
    soonest = heard(detection.silence_ms if detection.eagerness is None else soonest_ms(detection.eagerness))
    quiet = min(max(soonest // FRAME // 2 * FRAME, SOONEST_QUIET), QUIET)
    return Limits(quiet, soonest, detection)
