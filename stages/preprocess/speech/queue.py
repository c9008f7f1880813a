"""Who is recognised next: what is needed, then what probably will be, then the rest.

In each of these classes tenants, and their sessions, go in turn. Knows no model, no clock and no thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, get_args

from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.recogniser import Task, Urgency


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
    """Tasks that wait. Of a session at most one partial does: the newest."""

    def __init__(self) -> None:
        self._classes: dict[Urgency, _Class] = {urgency: _Class() for urgency in get_args(Urgency)}
        self.replaced = 0

    def count(self, urgency: Urgency) -> int:
        """Those of a class that anybody still waits for."""
        return sum(not waiting.answer.done() for waiting in self._classes[urgency])

    def add(self, waiting: Waiting) -> None:
        """Let a task wait."""
        line = self._classes[waiting.task.urgency].line(waiting.task)
        if waiting.task.urgency == "partial":
            while line:
                self.replaced += line.popleft().answer.cancel()
        line.append(waiting)

    def take(
        self, most: int, kind: Callable[[Task], object], *, others: int | None = None, partials: bool = True
    ) -> list[Waiting]:
        """At most `most` tasks of one class and one `kind` that go next, and out of the queue.

        No more than `others` of them, if they are not final: those that will be wait for them.
        """
        for urgency, waiting in self._classes.items():
            at_once = most if others is None or urgency == "final" else min(most, others)
            if (partials or urgency != "partial") and (taken := self._take(waiting, at_once, kind)):
                return taken
        return []

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
