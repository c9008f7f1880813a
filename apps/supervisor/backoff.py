"""How long to wait before the next attempt at something that keeps failing. Knows no process and no clock."""

from __future__ import annotations

import random
from collections.abc import Callable

AT_ONCE = 2
"""So many failures in a row cost no wait: what was killed from outside shall be back at once."""
LOOPING = 5
"""So many failures in a row are told as a loop."""


class Backoff:
    """Counts failures in a row; times in seconds.

    Args:
        first: The wait after the first failures, which doubles with each further one.
        most: The longest wait.
        settled: A life of this length forgives all before.
        chance: Gives a number from 0 to 1, so that many do not come back at the same moment.
    """

    def __init__(
        self, first: float, most: float, settled: float, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._first, self._most, self._settled = first, most, settled
        self._chance = chance
        self.failures = 0

    def failed(self, lived: float) -> float:
        """The wait after a life of `lived` seconds."""
        self.failures = 1 if lived >= self._settled else self.failures + 1
        doublings = min(self.failures - AT_ONCE - 1, 32)
        if doublings < 0:
            return 0.0
        return float(min(self._most, self._first * 2**doublings) * (0.5 + self._chance() / 2))

    @property
    def looping(self) -> bool:
        """Whether it fails again and again."""
        return self.failures >= LOOPING
