"""A bus whose logs are kept in the process: the same partitions, offsets, groups and redelivery as Kafka's.

It keeps nothing across the process's end, and it is bounded: of what all its groups have finished and its readers have
read, a partition keeps only the newest records; one that is full of others lets the publisher wait.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from pipeline.bus import NO_NOTES, Headers, Listener, Part, Record
from pipeline.errors import BusUnavailable, MessageTooLarge, OwnershipLost, TopicMissing
from pipeline.memory_log import Cursors, Log
from pipeline.topics import ROUTE, Topic

log = logging.getLogger(__name__)


class MemoryMember(Cursors):
    """A member of a group of a `MemoryBus`."""

    def __init__(self, group: _Group, listener: Listener) -> None:
        super().__init__()
        self._group = group
        self.listener = listener

    @property
    def parts(self) -> frozenset[Part]:
        """The partitions that this member owns."""
        return frozenset(self._logs)

    async def note(self, part: Part) -> str:
        """See `Member.note`."""
        return self._group.notes.get(part, "")

    async def commit(self, offsets: Mapping[Part, int], notes: Mapping[Part, str] = NO_NOTES) -> None:
        """See `Member.commit`."""
        for part, offset in offsets.items():
            if self._group.owner.get(part) is not self:
                raise OwnershipLost(self._group.name, f"{part} belongs to another member")
            self._group.commit(part, offset, notes.get(part, ""))

    async def crash(self) -> None:
        """Vanish without a word, as a killed process does; the others get the partitions from the last commit on."""
        await self._group.leave(self)


class _Group:
    """Members that share the partitions of some topics, eagerly: everything is revoked, then assigned."""

    def __init__(self, name: str, logs: Mapping[Part, Log]) -> None:
        self.name = name
        self.committed = dict.fromkeys(logs, 0)
        self.notes: dict[Part, str] = {}
        self.owner: dict[Part, MemoryMember] = {}
        self._logs = dict(logs)
        self._members: list[MemoryMember] = []
        self._rebalancing = asyncio.Lock()

    def cover(self, logs: Mapping[Part, Log]) -> None:
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

    def commit(self, part: Part, offset: int, note: str) -> None:
        self.committed[part] = max(self.committed[part], offset)
        self.notes[part] = note
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
                Log(Part(topic.name, number), keep=min(keep, max_records), max_records=max_records, max_bytes=max_bytes)
                for number in range(topic.partitions or partitions)
            ]
            for topic in route
        }
        self._groups: dict[str, _Group] = {}
        self._readers: set[Cursors] = set()
        self._max_message = max_message
        self._patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._groups.clear()

    def _topic(self, topic: str) -> list[Log]:
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
        target = logs[_number(key, len(logs)) if partition is None else partition]
        if target.long:
            target.trim(self._floor(target))
        if target.full:
            await self._make_room(target)
        delivery: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        delivery.set_result(target.append(key, value, dict(headers)))
        return delivery

    def _floor(self, target: Log) -> int:
        """The first offset that some group has not finished, or some reader has not read."""
        floor = target.end
        for place in (
            *(group.committed.get(target.part) for group in self._groups.values()),
            *(reader.position(target.part) for reader in self._readers),
        ):
            if place is not None and place < floor:
                floor = place
        return floor

    async def _make_room(self, target: Log) -> None:
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
    async def reader(self, start: Mapping[Part, int | None]) -> AsyncGenerator[Cursors, None]:
        """See `Bus.reader`."""
        logs = [self._topic(part.topic)[part.number] for part in start]
        cursors = Cursors()
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

    async def part_of(self, topic: str, key: str) -> Part:
        """See `Bus.part_of`."""
        return Part(topic, _number(key, len(self._topic(topic))))

    async def end(self, part: Part) -> int:
        """See `Bus.end`."""
        return self._topic(part.topic)[part.number].end

    async def offset_at(self, part: Part, timestamp: int) -> int:
        """See `Bus.offset_at`."""
        return self._topic(part.topic)[part.number].offset_at(timestamp)

    async def check(self) -> None:
        """See `Bus.check`: memory always answers."""


def _number(key: str, count: int) -> int:
    """Which of `count` partitions the records of `key` are in."""
    return zlib.crc32(key.encode()) % count
