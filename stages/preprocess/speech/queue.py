"""Who is recognised next: final pieces before all others, and in either class tenants, and their sessions, in turn.

Knows no model, no clock and no thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.recogniser import Task


class Waiting(NamedTuple):
    """A task that waits since `since`, and where its answer goes."""

    task: Task
    answer: Answer
    since: float


class _Class:
    """What waits of one class: by tenant, and of each by session."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, deque[Waiting]]] = OrderedDict()

    def __iter__(self) -> Iterator[Waiting]:
        for sessions in self._tenants.values():
            for line in sessions.values():
                yield from line

    def line(self, task: Task) -> deque[Waiting]:
        return self._tenants.setdefault(task.tenant, OrderedDict()).setdefault(task.session, deque())

    def pop(self) -> Waiting | None:
        """The first of the session whose turn it is; its tenant, and in that the session, goes to the end."""
        if not self._tenants:
            return None
        tenant, sessions = self._tenants.popitem(last=False)
        session, line = sessions.popitem(last=False)
        waiting = line.popleft()
        if line:
            sessions[session] = line
        if sessions:
            self._tenants[tenant] = sessions
        return waiting


class FairQueue:
    """Tasks that wait. Of a session at most one that is not final does: the newest."""

    def __init__(self) -> None:
        self._finals, self._partials = _Class(), _Class()
        self.replaced = 0

    def count(self, *, final: bool) -> int:
        """Those of a class that anybody still waits for."""
        return sum(not waiting.answer.done() for waiting in (self._finals if final else self._partials))

    def add(self, waiting: Waiting) -> None:
        """Let a task wait."""
        line = (self._finals if waiting.task.final else self._partials).line(waiting.task)
        if not waiting.task.final:
            while line:
                self.replaced += line.popleft().answer.cancel()
        line.append(waiting)

    def take(self, most: int, kind: Callable[[Task], object], *, partials: bool = True) -> list[Waiting]:
        """At most `most` tasks of one class and one `kind` that go next, and out of the queue."""
        return self._take(self._finals, most, kind) or (self._take(self._partials, most, kind) if partials else [])

    def _take(self, waiting: _Class, most: int, kind: Callable[[Task], object]) -> list[Waiting]:
        taken: list[Waiting] = []
        others: list[Waiting] = []
        while len(taken) < most and (one := waiting.pop()) is not None:
            if one.answer.done():
                continue
            alike = not taken or kind(one.task) == kind(taken[0].task)
            (taken if alike else others).append(one)
        for other in reversed(others):
            self._put_back(waiting, other)
        return taken

    def _put_back(self, waiting: _Class, one: Waiting) -> None:
        waiting.line(one.task).appendleft(one)
