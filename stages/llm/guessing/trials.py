"""When to try a drafter that is not asked to guess at present: as often as a small share of the time pays for."""

from __future__ import annotations

SHARE = 0.005
"""Of the time of all steps, what trials may cost altogether."""

SAVED = 3
"""Trials whose cost may be saved up at most."""


class Purse:
    """Seconds that may be spent on trials. A trial that gains what it costs may be followed by another at once."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def earn(self, step_s: float) -> None:
        """A step has taken so long."""
        self._seconds += SHARE * step_s

    def gain(self, seconds: float) -> None:
        """A trial has saved so much."""
        self._seconds += seconds

    def pay(self, cost_s: float) -> bool:
        """Spend so much on a trial, if there is so much."""
        if self._seconds < cost_s:
            return False
        self._seconds = min(self._seconds, SAVED * cost_s) - cost_s
        return True
