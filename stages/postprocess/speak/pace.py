"""When sound may be published: as it is heard, and a little ahead.

Knows no clock; times are seconds since 1970, positions samples. What comes late shifts all that follows: whoever hears
it has heard nothing meanwhile, and must not get more than the lead at once. Only who speaks an answer again, after
another has died, catches up: what has been due since comes at once.
"""

from __future__ import annotations

from pipeline.voice import RATE

AGAIN_S = 1.0
"""An answer that was said so many seconds ago has been begun by another, or has waited as long as that."""


STALL_S = 0.05
"""Seconds by which sound comes too late from which on that is heard as a gap."""


class Pace:
    """The pace of one answer; `lead` is how many seconds ahead of being heard it is published."""

    def __init__(self, lead: float) -> None:
        self._lead = lead
        self._origin: float | None = None
        self._again = False
        self.stalls = 0
        """How often all had been heard before more came."""

    def wait(self, position: int, since: float, now: float) -> float:
        """How many seconds to wait before what begins at `position`, of a sentence said at `since`, is published."""
        said = min(since, now)
        if self._origin is None:
            self._origin, self._again = said, now - said > AGAIN_S
        self._origin = max(self._origin, said - position / RATE)
        due = self._origin + position / RATE - self._lead
        if due > now:
            self._again = False
            return due - now
        if not self._again and (late := now - position / RATE - self._origin) > 0:
            self.stalls += late > STALL_S and position > 0
            self._origin += late
        return 0.0

    def needed(self, position: int, now: float) -> float:
        """When what begins at `position` will be heard, if it is there by then."""
        return now if self._origin is None else self._origin + position / RATE

    def unheard(self, end: int, now: float) -> float:
        """How many seconds of what was published up to `end` nobody can have heard yet."""
        if self._origin is None:
            return 0.0
        return min(max(0.0, end / RATE - (now - self._origin)), end / RATE)
