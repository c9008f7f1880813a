"""Turns that the stages would refuse anyway are refused here, at once and for next to nothing.

Adaptive throttling, as in the chapter on overload of Google's book on site reliability: as long as a tenant's turns are
taken, all go on; where most are refused for overload, about twice as many go on as are taken, so that it shows when
there is room again.
"""

from __future__ import annotations

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable

from apps.gateway.refusal import LIMITED, Refusal
from pipeline.messages import Problem

OVERLOADED = "overloaded"
TIMES = 2.0
"""How many turns go on for each that is taken."""
MEMORY_S = 10.0
"""What was so long ago counts a third."""
FEW = 8.0
"""Turns of which too little can be learned."""
MOST_TENANTS = 10_000


class _Past:
    """A tenant's turns of late, each counting less the longer ago it was."""

    def __init__(self, now: float) -> None:
        self.asked = self.taken = 0.0
        self.retry_after = 1.0
        self._at = now

    def fade(self, now: float) -> None:
        share = math.exp((self._at - now) / MEMORY_S)
        self.asked, self.taken, self._at = self.asked * share, self.taken * share, now


class Throttle:
    """What came of each tenant's turns."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._tenants: OrderedDict[str, _Past] = OrderedDict()

    def admit(self, tenant: str) -> None:
        """Let a turn of `tenant` go on; until it is refused it counts as taken.

        Raises:
            Refusal: too many of its turns are refused.
        """
        past = self._past(tenant)
        past.asked += 1
        if self._chance() * (past.asked + FEW) < past.asked - TIMES * past.taken - FEW:
            why = f"the model is busy with your turns; try again in {past.retry_after:.1f} s"
            raise Refusal(OVERLOADED, why, kind=LIMITED, retry_after=past.retry_after)
        past.taken += 1

    def heard(self, tenant: str, problem: Problem | None) -> None:
        """A turn that had gone on has ended, with a `problem` or without."""
        if problem is not None and problem.code == OVERLOADED:
            past = self._past(tenant)
            past.taken = max(0.0, past.taken - 1)
            past.retry_after = problem.retry_after or past.retry_after

    def _past(self, tenant: str) -> _Past:
        now = self._clock()
        if tenant not in self._tenants:
            self._tenants[tenant] = _Past(now)
            if len(self._tenants) > MOST_TENANTS:
                self._tenants.popitem(last=False)
        self._tenants.move_to_end(tenant)
        past = self._tenants[tenant]
        past.fade(now)
        return past
