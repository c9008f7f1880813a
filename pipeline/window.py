"""Which offsets of a partition are in hand, and hence what may be committed. Pure; knows no bus."""

from __future__ import annotations

from collections import deque


class Window:
    """The offsets started but not yet committable, of one partition.

    Offsets start in ascending order (with gaps, where a log has them) and finish in any.
    """

    def __init__(self) -> None:
        self._started: deque[int] = deque()
        self._finished: set[int] = set()
        self._next: int | None = None

    @property
    def next(self) -> int | None:
        """The offset after the newest started, or None before the first."""
        return self._next

    @property
    def committable(self) -> int | None:
        """All before this offset is finished: the oldest unfinished, or else `next`."""
        return self._started[0] if self._started else self._next

    @property
    def span(self) -> int:
        """Records from the oldest unfinished to the newest started."""
        return len(self._started)

    def start(self, offset: int) -> bool:
        """Take `offset` in hand; False if it already was."""
        if self._next is not None and offset < self._next:
            return False
        self._started.append(offset)
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> None:
        """Be done with `offset`."""
        self._finished.add(offset)
        while self._started and self._started[0] in self._finished:
            self._finished.remove(self._started.popleft())
