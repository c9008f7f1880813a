"""How much may come in: partitions are paused close to the bound of what they may have in hand, and resumed."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.bus import Member, Part
from pipeline.holding import Holding
from pipeline.stage import Stage
from pipeline.telemetry import LoopMetrics

ROOM = 10
"""The part of a stage's span below which a partition is paused."""


class Flow:
    """Pauses and resumes the partitions in `holdings` for the bound of `stage`; `batch` is the most taken at once."""

    def __init__(self, stage: Stage, holdings: Mapping[Part, Holding], metrics: LoopMetrics, *, batch: int) -> None:
        self.member: Member | None = None
        self._stage = stage
        self._holdings = holdings
        self._metrics = metrics
        self._batch = batch

    def _load(self, holding: Holding) -> int:
        return holding.backlog.count + len(holding.early) if self._stage.folding else holding.window.span

    def room(self) -> int:
        """How many records may be taken next."""
        rooms = (self._stage.span - self._load(holding) for holding in self._holdings.values() if not holding.paused)
        return max(1, min(self._batch, min(rooms, default=1)))

    @property
    def patience(self) -> float:
        """Seconds to wait for records: not for long where a paused partition may soon be resumed."""
        return 0.1 if any(holding.paused for holding in self._holdings.values()) else 1.0

    def regulate(self, holding: Holding) -> None:
        """Pause a partition that is close to the bound, resume one that is not: few records at a time are dear."""
        if self.member is None or holding.part not in self._holdings:
            return
        full = self._stage.span - self._load(holding) < max(1, self._stage.span // ROOM)
        if full and not holding.paused:
            self.member.pause(holding.part)
            self._metrics.pauses.inc()
        elif holding.paused and not full:
            self.member.resume(holding.part)
        holding.paused = full
