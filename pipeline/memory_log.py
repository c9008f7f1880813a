"""The partitions of `MemoryBus`, and how its readers go through them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from pipeline.bus import Headers, Part, Record

log = logging.getLogger(__name__)

RECORD_OVERHEAD = 200
"""Bytes that a record costs beside its value, about."""


class Log:
    """One partition: the records from offset `base` on, and whom to wake when there are more."""

    def __init__(self, part: Part, *, keep: int, max_records: int, max_bytes: int) -> None:
        self.part = part
        self.base = 0
        self.records: deque[Record] = deque()
        self.bytes = 0
        self.watchers: set[asyncio.Event] = set()
        self.moved = asyncio.Event()
        """Set when a group or a reader has come further."""
        self._keep = keep
        self._max_records = max_records
        self._max_bytes = max_bytes

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.base + len(self.records)

    @property
    def full(self) -> bool:
        """Whether it holds as many records, or bytes, as it may."""
        return len(self.records) >= self._max_records or self.bytes >= self._max_bytes

    def append(self, key: str, value: bytes, headers: Headers) -> int:
        """Take a record; its offset."""
        offset = self.end
        self.records.append(Record(self.part, offset, time.time_ns() // 1_000_000, key, value, headers))
        self.bytes += len(value) + RECORD_OVERHEAD
        for watcher in self.watchers:
            watcher.set()
        return offset

    @property
    def long(self) -> bool:
        """Whether there is more than is worth keeping once it is finished."""
        return len(self.records) >= self._keep or self.bytes >= self._max_bytes // 4

    def trim(self, floor: int) -> None:
        """Drop the oldest records beyond those worth keeping, but none from offset `floor` on."""
        while self.long and self.base < floor:
            self.bytes -= len(self.records.popleft().value) + RECORD_OVERHEAD
            self.base += 1

    def read(self, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on."""
        if offset < self.base:
            log.error("%s: records %d to %d are gone; reading on from there", self.part, offset, self.base - 1)
        start = max(0, offset - self.base)
        return list(islice(self.records, start, start + limit))

    def offset_at(self, timestamp: int) -> int:
        """The offset of the first record that is no older, in milliseconds since 1970."""
        for record in self.records:
            if record.timestamp >= timestamp:
                return record.offset
        return self.end


class Cursors:
    """Reads some logs, each from its position on. The common half of members and readers."""

    def __init__(self) -> None:
        self._logs: dict[Part, Log] = {}
        self._positions: dict[Part, int] = {}
        self._paused: set[Part] = set()
        self._wake = asyncio.Event()

    def hold(self, logs: Iterable[Log], positions: Mapping[Part, int]) -> None:
        """Read `logs` from now on, and nothing else."""
        for old in self._logs.values():
            old.watchers.discard(self._wake)
        self._logs = {log.part: log for log in logs}
        self._positions = dict(positions)
        self._paused &= self._logs.keys()
        for new in self._logs.values():
            new.watchers.add(self._wake)
        self._wake.set()

    async def poll(self, *, limit: int, timeout: float) -> Sequence[Record]:
        """See `Reader.poll`."""
        await asyncio.sleep(0)
        self._wake.clear()
        if records := self._read(limit):
            return records
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return ()
        return self._read(limit)

    def _read(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for part, source in list(self._logs.items()):
            if part in self._paused or len(records) >= limit:
                continue
            found = source.read(self._positions[part], limit - len(records))
            if found:
                self._positions[part] = found[-1].offset + 1
                source.moved.set()
                self._logs[part] = self._logs.pop(part)  # fairness: the partition just read comes last next time
            records += found
        return records

    def position(self, part: Part) -> int | None:
        """The offset that comes next of `part`; None if it is not read."""
        return self._positions.get(part)

    def pause(self, part: Part) -> None:
        """See `Member.pause`."""
        self._paused.add(part)

    def resume(self, part: Part) -> None:
        """See `Member.resume`."""
        self._paused.discard(part)
        self._wake.set()

    def seek(self, part: Part, offset: int) -> None:
        """See `Member.seek`."""
        if part in self._logs:
            self._positions[part] = offset
            self._wake.set()

    async def lag(self) -> int:
        """See `Member.lag`."""
        return sum(source.end - self._positions[part] for part, source in self._logs.items())
