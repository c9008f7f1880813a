"""Tells from a worker's beats whether it is wedged. Has no clock of its own, and kills nobody."""

from __future__ import annotations

from dataclasses import dataclass

from apps.supervisor.words import Beat


@dataclass(frozen=True)
class Patience:
    """Seconds without progress that are borne; see the settings of the same names."""

    silent_s: float
    load_s: float
    step_s: float
    stalled_s: float


class Watchdog:
    """Watches one worker, which was started at `now`. Times are those of one monotonic clock, in seconds."""

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self._heard = now
        self._moved = now
        self.beat = Beat("loading")

    def hear(self, beat: Beat, now: float) -> None:
        """`beat` has come."""
        if not _should_move(beat) or beat.taken != self.beat.taken or self.beat.phase != "serving":
            self._moved = now
        self._heard = now
        self.beat = beat

    def forgive(self, now: float) -> None:
        """Nobody was watching: the time until `now` does not count."""
        self._heard = self._moved = now

    def verdict(self, now: float) -> str:
        """Why the worker is to be killed; nothing if it is well.

        Loading is not being wedged: libraries and weights can hold up an event loop for long.
        """
        patience, beat = self._patience, self.beat
        silent = now - self._heard
        if beat.phase == "loading":
            return f"it was silent for {silent:.1f} s while it loaded" if silent > patience.load_s else ""
        if silent > patience.silent_s:
            return f"no heartbeat for {silent:.1f} s"
        if beat.step_s > patience.step_s:
            return f"its model has been in one step for {beat.step_s:.1f} s"
        still = now - self._moved
        if still > patience.stalled_s:
            return f"it has taken nothing for {still:.1f} s, although {beat.lag} records wait and nothing is in hand"
        return ""


def _should_move(beat: Beat) -> bool:
    """Whether a worker that beats so should be given records."""
    return beat.phase == "serving" and not beat.note and bool(beat.lag) and beat.in_hand == beat.listening
