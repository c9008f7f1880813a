"""When a session's next snapshot is due: often enough that coming back is quick, seldom enough that it costs little."""

from __future__ import annotations

from pipeline.messages import Snapshot

LEAST = 32
"""Records of a session that are not worth a snapshot."""
RECORD_BYTES = 200
"""What one of them takes, about."""
SMALL = 16 * 1024
"""Bytes of a snapshot that is made anew as often as any; a larger one so much the less often."""


class Memory:
    """What is known of a session's snapshots."""

    def __init__(self) -> None:
        self._size = 0
        self._on_the_way = False

    def due(self, records: int, back: int, distance: int) -> bool:
        """Whether one is, where so many `records` of the session came since the last one, so far `back` in the log.

        The log grows by at most as much as it would without snapshots, and by one for `distance` records of all.
        """
        if self._on_the_way:
            return False
        return records > LEAST + self._size // RECORD_BYTES or back > distance * max(1, self._size // SMALL)

    def made(self, state: bytes) -> None:
        """One is on its way to the log."""
        self._size, self._on_the_way = len(state), True

    def read(self, snapshot: Snapshot, owner: str) -> None:
        """One stands in the log."""
        if snapshot.owner == owner:
            self._size, self._on_the_way = len(snapshot.state), False

    def lost(self) -> None:
        """One did not reach the log, perhaps for its size."""
        self._size, self._on_the_way = 2 * self._size, False
