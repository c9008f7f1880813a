"""A bus whose logs are kept in the process: the same partitions, offsets, groups and redelivery as Kafka's.

It keeps nothing across the process's end, and it is bounded: of what all its groups have finished and its readers have
read, a partition keeps only the newest records; one that is full of others lets the publisher wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Self

from pipeline.bus import Headers, Listener, Part, Record
from pipeline.errors import BusUnavailable, MessageTooLarge, OwnershipLost, TopicMissing
from pipeline.topics import ROUTE, Topic

log = logging.getLogger(__name__)

RECORD_OVERHEAD = 200
"""Bytes that a record costs beside its value, about."""


class _Log:
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
        return self.base + len(self.records)

    @property
    def full(self) -> bool:
        return len(self.records) >= self._max_records or self.bytes >= self._max_bytes

    def append(self, key: str, value: bytes, headers: Headers) -> int:
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
        if offset < self.base:
            log.error("%s: records %d to %d are gone; reading on from there", self.part, offset, self.base - 1)
        start = max(0, offset - self.base)
        return list(islice(self.records, start, start + limit))

    def offset_at(self, timestamp: int) -> int:
        for record in self.records:
            if record.timestamp >= timestamp:
                return record.offset
        return self.end


class _Cursors:
    """Reads some logs, each from its position on. The common half of members and readers."""

    def __init__(self) -> None:
        self._logs: dict[Part, _Log] = {}
        self._positions: dict[Part, int] = {}
        self._paused: set[Part] = set()
        self._wake = asyncio.Event()

    def hold(self, logs: Iterable[_Log], positions: Mapping[Part, int]) -> None:
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


class MemoryMember(_Cursors):
    """A member of a group of a `MemoryBus`."""

    def __init__(self, group: _Group, listener: Listener) -> None:
        super().__init__()
        self._group = group
        self.listener = listener

    @property
    def parts(self) -> frozenset[Part]:
        """The partitions that this member owns."""
        return frozenset(self._logs)

    async def commit(self, offsets: Mapping[Part, int]) -> None:
        """See `Member.commit`."""
        for part, offset in offsets.items():
            if self._group.owner.get(part) is not self:
                raise OwnershipLost(self._group.name, f"{part} belongs to another member")
            self._group.commit(part, offset)

    async def crash(self) -> None:
        """Vanish without a word, as a killed process does; the others get the partitions from the last commit on."""
        await self._group.leave(self)


class _Group:
    """Members that share the partitions of some topics, eagerly: everything is revoked, then assigned."""

    def __init__(self, name: str, logs: Mapping[Part, _Log]) -> None:
        self.name = name
        self.committed = dict.fromkeys(logs, 0)
        self.owner: dict[Part, MemoryMember] = {}
        self._logs = dict(logs)
        self._members: list[MemoryMember] = []
        self._rebalancing = asyncio.Lock()

    def cover(self, logs: Mapping[Part, _Log]) -> None:
        for part, source in logs.items():
            self._logs[part] = source
            self.committed.setdefault(part, 0)

    async def join(self, member: MemoryMember) -> None:
        async with self._rebalancing:
            await self._revoke()
            self._members.append(member)
            await self._assign()

    async def leave(self, member: MemoryMember) -> None:
        async with self._rebalancing:
            if member not in self._members:
                return
            self._members.remove(member)
            member.hold((), {})
            await self._revoke()
            await self._assign()

    async def _revoke(self) -> None:
        for member in self._members:
            await member.listener.revoked(member.parts)

    async def _assign(self) -> None:
        self.owner = self._shares()
        for member in self._members:
            parts = [part for part, owner in self.owner.items() if owner is member]
            member.hold((self._logs[part] for part in parts), {part: self.committed[part] for part in parts})
        for member in self._members:
            await member.listener.assigned(member.parts)

    def _shares(self) -> dict[Part, MemoryMember]:
        """Who owns what, evenly, with as few moves as possible."""
        if not self._members:
            return {}
        parts = sorted(self._logs)
        most = -(-len(parts) // len(self._members))
        count = dict.fromkeys(self._members, 0)
        shares: dict[Part, MemoryMember] = {}
        for part in parts:
            owner = self.owner.get(part)
            if owner in count and count[owner] < most:
                shares[part] = owner
                count[owner] += 1
        for part in parts:
            if part not in shares:
                shares[part] = min(self._members, key=lambda member: count[member])
                count[shares[part]] += 1
        return shares

    def commit(self, part: Part, offset: int) -> None:
        self.committed[part] = max(self.committed[part], offset)
        self._logs[part].moved.set()


class MemoryBus:
    """Partitioned logs in memory.

    Args:
        route: the topics that exist.
        partitions: how many each topic has that does not say so itself.
        keep: records that a partition keeps of what all groups have finished.
        max_records: records of a partition, beyond which its publishers wait.
        max_bytes: the same in bytes; a quarter of it is kept of what is finished.
        max_message: bytes of the largest record.
        patience: seconds that a publisher waits for room before it gives up.
    """

    def __init__(
        self,
        route: Collection[Topic] = ROUTE,
        *,
        partitions: int = 8,
        keep: int = 5_000,
        max_records: int = 50_000,
        max_bytes: int = 32 << 20,
        max_message: int = 1 << 20,
        patience: float = 30.0,
    ) -> None:
        self._logs = {
            topic.name: [
                _Log(
                    Part(topic.name, number), keep=min(keep, max_records), max_records=max_records, max_bytes=max_bytes
                )
                for number in range(topic.partitions or partitions)
            ]
            for topic in route
        }
        self._groups: dict[str, _Group] = {}
        self._readers: set[_Cursors] = set()
        self._max_message = max_message
        self._patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._groups.clear()

    def _topic(self, topic: str) -> list[_Log]:
        try:
            return self._logs[topic]
        except KeyError:
            raise TopicMissing(topic) from None

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> asyncio.Future[int]:
        """See `Bus.publish`."""
        logs = self._topic(topic)
        if len(value) > self._max_message:
            raise MessageTooLarge(topic, size=len(value), limit=self._max_message)
        target = logs[zlib.crc32(key.encode()) % len(logs) if partition is None else partition]
        if target.long:
            target.trim(self._floor(target))
        if target.full:
            await self._make_room(target)
        delivery: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        delivery.set_result(target.append(key, value, dict(headers)))
        return delivery

    def _floor(self, target: _Log) -> int:
        """The first offset that some group has not finished, or some reader has not read."""
        floor = target.end
        for place in (
            *(group.committed.get(target.part) for group in self._groups.values()),
            *(reader.position(target.part) for reader in self._readers),
        ):
            if place is not None and place < floor:
                floor = place
        return floor

    async def _make_room(self, target: _Log) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while target.full:
                    target.moved.clear()
                    await target.moved.wait()
                    target.trim(self._floor(target))
        except TimeoutError:
            why = f"{target.part.topic}/{target.part.number} is full and nobody reads it"
            raise BusUnavailable("memory", why) from None

    @asynccontextmanager
    async def member(
        self, group: str, topics: Collection[str], listener: Listener
    ) -> AsyncGenerator[MemoryMember, None]:
        """See `Bus.member`."""
        logs = {source.part: source for topic in topics for source in self._topic(topic)}
        shared = self._groups.setdefault(group, _Group(group, logs))
        shared.cover(logs)
        member = MemoryMember(shared, listener)
        await shared.join(member)
        try:
            yield member
        finally:
            await shared.leave(member)

    @asynccontextmanager
    async def reader(self, start: Mapping[Part, int | None]) -> AsyncGenerator[_Cursors, None]:
        """See `Bus.reader`."""
        logs = [self._topic(part.topic)[part.number] for part in start]
        cursors = _Cursors()
        cursors.hold(logs, {log.part: log.end if (at := start[log.part]) is None else at for log in logs})
        self._readers.add(cursors)
        try:
            yield cursors
        finally:
            self._readers.discard(cursors)
            cursors.hold((), {})

    async def span(self, part: Part, start: int, end: int) -> Sequence[Record]:
        """See `Bus.span`."""
        log = self._topic(part.topic)[part.number]
        return log.read(start, max(0, end - max(start, log.base)))

    async def partitions(self, topic: str) -> int:
        """See `Bus.partitions`."""
        return len(self._topic(topic))

    async def end(self, part: Part) -> int:
        """See `Bus.end`."""
        return self._topic(part.topic)[part.number].end

    async def offset_at(self, part: Part, timestamp: int) -> int:
        """See `Bus.offset_at`."""
        return self._topic(part.topic)[part.number].offset_at(timestamp)

    async def check(self) -> None:
        """See `Bus.check`: memory always answers."""
