"""What a step costs: measured at some sizes (see `timing.py`), corrected by what steps really take.

The cost of a step is no line in its rows: libraries compute in tiles, so one row more costs nothing or a whole tile;
and a loaded machine is slower than the one that was measured. So the table has points, each with a factor. Pure.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence as Seq

LEARNED, OWN = 0.1, 0.05
"""How much the latest step counts for all sizes of steps, and for its own at least: the first ones count more."""

OUTLIER = 2.0
"""A step that took more than so many times what it should says no more than that: the machine may have slept."""

LEAST_S = 1e-9


class Costs:
    """Seconds of a step: those of its rows, by `points` (rows, seconds) in rising order, and `sequence` for each.

    Between two points the cost is on the line between them, and beyond the last it rises as between the last two. Rows
    are computed in multiples of `tile`, so that those up to the next one are free.
    """

    def __init__(self, points: Seq[tuple[int, float]], sequence: float = 0.0, *, tile: int = 1) -> None:
        self._rows = [rows for rows, _ in points]
        # What has more rows cannot be cheaper: what says so was disturbed.
        cheapest = itertools.accumulate((seconds for _, seconds in reversed(points)), min)
        self._seconds = list(cheapest)[::-1]
        self._sequence = sequence
        self._tile = tile
        self._factor = 1.0
        self._own = [1.0] * len(points)
        self._known: dict[tuple[int, int], float] = {}
        """Of steps asked for since the last one was seen: for one decision there are hundreds of questions."""
        self._seen = [0] * len(points)

    @classmethod
    def line(cls, base: float, sequence: float, token: float) -> Costs:
        """Costs without steps: `base`, and so much for each sequence and token."""
        return cls([(0, base), (1, base + token)], sequence)

    @property
    def token(self) -> float:
        """Seconds for a row more in a large step."""
        if len(self._rows) == 1:
            return self._seconds[0] / self._rows[0]
        (a, b), (first, second) = self._rows[-2:], self._seconds[-2:]
        return self._factor * (second - first) / (b - a)

    def step(self, sequences: int, rows: int) -> float:
        """Seconds of a step of so many sequences with so many rows altogether."""
        rows += -rows % self._tile
        seconds = self._known.get((sequences, rows))
        if seconds is None:
            seconds = self._known[sequences, rows] = self._step(sequences, rows)
        return seconds

    def _step(self, sequences: int, rows: int) -> float:
        upper = bisect.bisect_left(self._rows, rows)
        if upper == 0:
            return self._factor * self._own[0] * (self._seconds[0] + sequences * self._sequence)
        if upper == len(self._rows):
            rest = (rows - self._rows[-1]) * self.token
            return self._own[-1] * (self._factor * (self._seconds[-1] + sequences * self._sequence) + rest)
        share = (rows - self._rows[upper - 1]) / (self._rows[upper] - self._rows[upper - 1])
        own = (1 - share) * self._own[upper - 1] + share * self._own[upper]
        seconds = (1 - share) * self._seconds[upper - 1] + share * self._seconds[upper]
        return self._factor * own * (seconds + sequences * self._sequence)

    def saw(self, sequences: int, rows: int, seconds: float) -> None:
        """A step took so long. What it tells of the machine holds for all sizes, what of this size for the nearest."""
        ratio = seconds / max(LEAST_S, self.step(sequences, rows))
        ratio = min(OUTLIER, max(1 / OUTLIER, ratio))
        self._factor *= ratio**LEARNED
        point = self._nearest(rows)
        self._own[point] *= ratio ** max(OWN, 1 / (3 + self._seen[point]))
        self._seen[point] += 1
        self._known.clear()

    def _nearest(self, rows: int) -> int:
        upper = min(bisect.bisect_left(self._rows, rows), len(self._rows) - 1)
        lower = max(0, upper - 1)
        return lower if rows - self._rows[lower] < self._rows[upper] - rows else upper
