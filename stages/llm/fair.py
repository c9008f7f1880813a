"""Whose turn it is: waiting sequences, by tenant and within a tenant by session, each of which gets an equal share.

Fair queueing by virtual time: who has had the least of the model's time goes next. Whoever comes after a pause begins
where the one stands who went last, so that nobody saves up. Those of a higher priority go first, but who waits rises,
so that nobody starves. Knows no model: a sequence's `cost` is given.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping

from stages.llm.sequence import Sequence

REMEMBERED = 1000
"""Tenants, and sessions of each, of which it is known what they had."""

AGEING_S = 4.0
"""Seconds of waiting after which a sequence counts as one of the next higher priority."""


class Shares:
    """How much each of some rivals has had, in seconds of the model's time."""

    def __init__(self) -> None:
        self._had: OrderedDict[str, float] = OrderedDict()
        self._level = 0.0

    def __len__(self) -> int:
        return len(self._had)

    def had(self, name: str) -> float:
        """What `name` has had; who comes anew counts as the one who went last."""
        return self._had.get(name, self._level)

    def join(self, name: str) -> None:
        """`name` waits now, and did not before."""
        self._had[name] = max(self.had(name), self._level)
        self._had.move_to_end(name)
        if len(self._had) > REMEMBERED:
            self._had.popitem(last=False)

    def goes(self, name: str, cost: float) -> None:
        """`name` goes next, which will cost so much."""
        self._level = max(self._level, self.had(name))
        self.charge(name, cost)

    def charge(self, name: str, cost: float) -> None:
        """It has cost `name` so much more, or less."""
        self._had[name] = self.had(name) + cost


class _Line:
    """The waiting sequences of one tenant, by priority and session."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.classes: dict[int, dict[str, deque[Sequence]]] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for sessions in self.classes.values() for waiting in sessions.values())

    def __iter__(self) -> Iterator[Sequence]:
        for sessions in self.classes.values():
            for waiting in sessions.values():
                yield from waiting

    def add(self, sequence: Sequence) -> None:
        sessions = self.classes.setdefault(sequence.sampling.priority, {})
        if sequence.scope not in sessions:
            sessions[sequence.scope] = deque()
            self.shares.join(sequence.scope)
        sessions[sequence.scope].append(sequence)

    def remove(self, sequence: Sequence) -> None:
        sessions = self.classes[sequence.sampling.priority]
        sessions[sequence.scope].remove(sequence)
        if not sessions[sequence.scope]:
            del sessions[sequence.scope]
        if not sessions:
            del self.classes[sequence.sampling.priority]

    @property
    def heads(self) -> list[Sequence]:
        """Who is next of each priority."""
        return [sessions[min(sessions, key=self.shares.had)][0] for sessions in self.classes.values()]

    @property
    def last(self) -> Sequence:
        """Of the lowest priority, the latest of the session that has the most, or of such that began to wait last."""
        return max(reversed(self.classes[min(self.classes)].values()), key=len)[-1]

    def before(self, sequence: Sequence) -> float:
        sessions = self.classes.get(sequence.sampling.priority, {})
        own = sum(other.cost for other in sessions.get(sequence.scope, ()))
        backlogs = {name: sum(other.cost for other in waiting) for name, waiting in sessions.items()}
        return before(self.shares, sequence.scope, own, backlogs)

    def cost(self, priority: int) -> float:
        """Of all its sequences of that priority."""
        return sum(other.cost for waiting in self.classes.get(priority, {}).values() for other in waiting)


class FairQueue:
    """Sequences that wait, the higher priority first.

    Of one priority, those that had a place, or that another worker had begun, go before all others.
    """

    def __init__(self) -> None:
        self._resumed: deque[Sequence] = deque()
        self._begun: deque[Sequence] = deque()
        self._shares = Shares()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._resumed
        yield from self._begun
        for line in self._lines.values() if self._count else ():  # each step asks, and most of them in vain
            yield from line

    def add(self, sequence: Sequence, most: int) -> Sequence | None:
        """Let `sequence` wait; gives the one that must go where more than `most` would, which may be itself.

        That is the latest of the lowest priority of the tenant that has the most waiting.
        """
        self._count += 1
        if sequence.begun:
            self._begun.append(sequence)
            return None
        line = self._line(sequence.tenant)
        if not len(line):
            self._shares.join(sequence.tenant)
        line.add(sequence)
        if len(self) <= most:
            return None
        last = max(reversed(self._lines.values()), key=len).last
        self.remove(last)
        return last

    def back(self, sequence: Sequence) -> None:
        """`sequence` had to give its place up: of its priority, it goes before all others."""
        sequence.since = time.monotonic()
        self._count += 1
        self._resumed.appendleft(sequence)

    def remove(self, sequence: Sequence) -> None:
        """`sequence` waits no more."""
        self._count -= 1
        for waiting in (self._resumed, self._begun):
            if sequence in waiting:
                waiting.remove(sequence)
                return
        self._lines[sequence.tenant].remove(sequence)

    @property
    def heads(self) -> list[Sequence]:
        """Whose turn it is, and of each other tenant and priority who would be next."""
        if not self._count:
            return []
        heads = [head for line in self._lines.values() for head in line.heads]
        everybody = [*self._resumed, *self._begun, *heads]
        top, now = max((head.sampling.priority for head in everybody), default=0), time.monotonic()

        def rank(head: Sequence) -> int:
            return -min(top, head.sampling.priority + int((now - head.since) / AGEING_S))

        heads.sort(key=lambda head: (self._shares.had(head.tenant), head.since))
        return sorted([*self._resumed, *self._begun, *heads], key=rank)  # which leaves equal ones in their order

    @property
    def rivals(self) -> bool:
        """Whether there has been more than one tenant."""
        return len(self._lines) > 1

    def take(self, sequence: Sequence) -> bool:
        """`sequence`, one of the heads, is begun; its tenant and its session are charged. False: they were before."""
        again = sequence in self._resumed
        self.remove(sequence)
        if not again:
            self._shares.goes(sequence.tenant, sequence.cost)
            self._line(sequence.tenant).shares.goes(sequence.scope, sequence.cost)
        return not again

    def charge(self, sequence: Sequence, cost: float) -> None:
        """It has cost so much more than was thought, or less."""
        self._shares.charge(sequence.tenant, cost)
        self._line(sequence.tenant).shares.charge(sequence.scope, cost)

    def before(self, sequence: Sequence) -> float:
        """Seconds of the model's time that go to others before `sequence`, if it came now."""
        priority = sequence.sampling.priority
        went = (other for other in (*self._resumed, *self._begun) if other.sampling.priority >= priority)
        begun = sum(other.cost for other in went)
        above = sum(line.cost(other) for line in self._lines.values() for other in line.classes if other > priority)
        own = self._line(sequence.tenant).before(sequence)
        backlogs = {name: line.cost(priority) for name, line in self._lines.items() if len(line)}
        return begun + above + before(self._shares, sequence.tenant, own, backlogs)

    def _line(self, tenant: str) -> _Line:
        """The line of `tenant`; of those without anybody in it, the ones used lately are remembered."""
        line = self._lines.setdefault(tenant, _Line())
        self._lines.move_to_end(tenant)
        if len(self._lines) > REMEMBERED:
            idle = next(name for name, known in self._lines.items() if not len(known) or known is line)
            if idle != tenant:
                del self._lines[idle]
        return line


def before(shares: Shares, name: str, own: float, backlogs: Mapping[str, float]) -> float:
    """Seconds that go before one of `name` that has `own` before itself: each rival's, as far as it has had less."""
    reach = shares.had(name) + own
    return own + sum(
        min(backlog, max(0.0, reach - shares.had(other))) for other, backlog in backlogs.items() if other != name
    )
