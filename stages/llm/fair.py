"""Whose turn it is: waiting sequences, by tenant and within a tenant by session, each of which gets an equal share.

Fair queueing by virtual time: who has had the least of the model's time goes next. Whoever comes after a pause begins
where the one stands who went last, so that nobody saves up. Knows no model: a sequence's `cost` is given.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping

from stages.llm.sequence import Sequence

REMEMBERED = 1000
"""Tenants, and sessions of each, of which it is known what they had."""


class Shares:
    """How much each of some rivals has had, in seconds of the model's time."""

    def __init__(self) -> None:
        self._had: OrderedDict[str, float] = OrderedDict()
        self._level = 0.0

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
    """The waiting sequences of one tenant, by session."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.sessions: dict[str, deque[Sequence]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.sessions.values()))

    def __iter__(self) -> Iterator[Sequence]:
        for waiting in self.sessions.values():
            yield from waiting

    def add(self, sequence: Sequence) -> None:
        if sequence.scope not in self.sessions:
            self.sessions[sequence.scope] = deque()
            self.shares.join(sequence.scope)
        self.sessions[sequence.scope].append(sequence)

    def remove(self, sequence: Sequence) -> None:
        waiting = self.sessions[sequence.scope]
        waiting.remove(sequence)
        if not waiting:
            del self.sessions[sequence.scope]

    @property
    def head(self) -> Sequence:
        return self.sessions[min(self.sessions, key=self.shares.had)][0]

    @property
    def last(self) -> Sequence:
        """The latest of the session that has the most; of several such, the one that began to wait last."""
        return max(reversed(self.sessions.values()), key=len)[-1]

    def before(self, sequence: Sequence) -> float:
        own = sum(other.cost for other in self.sessions.get(sequence.scope, ()))
        backlogs = {name: sum(other.cost for other in waiting) for name, waiting in self.sessions.items()}
        return before(self.shares, sequence.scope, own, backlogs)


class FairQueue:
    """Sequences that wait. Those that another worker had begun go before all others."""

    def __init__(self) -> None:
        self._begun: deque[Sequence] = deque()
        self._shares = Shares()
        self._lines: OrderedDict[str, _Line] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun) + sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._begun
        for line in self._lines.values():
            yield from line

    @property
    def tenants(self) -> list[str]:
        """Those with sequences that wait."""
        return [name for name, line in self._lines.items() if line.sessions]

    def add(self, sequence: Sequence, most: int) -> Sequence | None:
        """Let `sequence` wait; gives the one that must go where more than `most` would, which may be itself.

        That is the latest of the tenant that has the most waiting.
        """
        if sequence.begun:
            self._begun.append(sequence)
            return None
        line = self._line(sequence.tenant)
        if not line.sessions:
            self._shares.join(sequence.tenant)
        line.add(sequence)
        if len(self) <= most:
            return None
        last = max(reversed(self._lines.values()), key=len).last
        self.remove(last)
        return last

    def remove(self, sequence: Sequence) -> None:
        """`sequence` waits no more."""
        if sequence in self._begun:
            self._begun.remove(sequence)
        else:
            self._lines[sequence.tenant].remove(sequence)

    @property
    def heads(self) -> list[Sequence]:
        """Whose turn it is, and of each other tenant who would be next."""
        return [*self._begun, *(self._lines[tenant].head for tenant in sorted(self.tenants, key=self._shares.had))]

    @property
    def rivals(self) -> bool:
        """Whether there has been more than one tenant."""
        return len(self._lines) > 1

    def take(self, sequence: Sequence) -> None:
        """`sequence`, one of the heads, is begun; its tenant and its session are charged."""
        self.remove(sequence)
        self._shares.goes(sequence.tenant, sequence.cost)
        self._line(sequence.tenant).shares.goes(sequence.scope, sequence.cost)

    def charge(self, sequence: Sequence, cost: float) -> None:
        """It has cost so much more than was thought, or less."""
        self._shares.charge(sequence.tenant, cost)
        self._line(sequence.tenant).shares.charge(sequence.scope, cost)

    def before(self, sequence: Sequence) -> float:
        """Seconds of the model's time that go to others before `sequence`, if it came now."""
        begun = sum(other.cost for other in self._begun)
        own = self._line(sequence.tenant).before(sequence)
        backlogs = {name: sum(other.cost for other in self._lines[name]) for name in self.tenants}
        return begun + before(self._shares, sequence.tenant, own, backlogs)

    def _line(self, tenant: str) -> _Line:
        """The line of `tenant`; of those without anybody in it, the ones used lately are remembered."""
        line = self._lines.setdefault(tenant, _Line())
        self._lines.move_to_end(tenant)
        if len(self._lines) > REMEMBERED:
            idle = next(name for name, known in self._lines.items() if not known.sessions or known is line)
            if idle != tenant:
                del self._lines[idle]
        return line


def before(shares: Shares, name: str, own: float, backlogs: Mapping[str, float]) -> float:
    """Seconds that go before one of `name` that has `own` before itself: each rival's, as far as it has had less."""
    reach = shares.had(name) + own
    return own + sum(
        min(backlog, max(0.0, reach - shares.had(other))) for other, backlog in backlogs.items() if other != name
    )
