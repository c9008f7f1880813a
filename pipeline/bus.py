"""What a bus is: partitioned logs of records, group members that share them, readers that do not.

Only the contract. `memory.py` keeps the logs in the process, `kafka.py` in Kafka; both pass the same tests.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import NamedTuple, Protocol

Headers = Mapping[str, str]


NO_NOTES: Mapping[Part, str] = MappingProxyType({})


class Part(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


class Record(NamedTuple):
    """One entry of a log. `timestamp` is in milliseconds since 1970."""

    part: Part
    offset: int
    timestamp: int
    key: str
    value: bytes
    headers: Headers


class Listener(Protocol):
    """Told of a group's rebalance. A revocation is provisional: most of it is usually assigned again."""

    async def revoked(self, parts: Collection[Part]) -> None:
        """The last moment at which offsets of `parts` can be committed."""

    async def assigned(self, parts: Collection[Part]) -> None:
        """All that this member owns from now on."""


class Member(Protocol):
    """One of a group's members, which share the partitions of some topics among them."""

    async def poll(self, *, limit: int, timeout: float) -> Sequence[Record]:
        """At most `limit` records that come next, or none after `timeout` seconds.

        Raises:
            OwnershipLost: another process has taken this member's place.
            BusUnavailable: the bus does not answer.
        """

    def pause(self, part: Part) -> None:
        """Let `poll` leave out `part`."""

    def resume(self, part: Part) -> None:
        """Let `poll` bring `part` again."""

    def seek(self, part: Part, offset: int) -> None:
        """Let `poll` bring `offset` of `part` next."""

    async def note(self, part: Part) -> str:
        """What was noted beside the last commit of `part`, whoever made it; nothing if nothing was.

        Raises:
            BusUnavailable: the bus does not answer.
        """

    async def commit(self, offsets: Mapping[Part, int], notes: Mapping[Part, str] = NO_NOTES) -> None:
        """Tell the group that all before these offsets is finished. A note is short, and goes with its offset.

        Raises:
            OwnershipLost: a partition is no longer this member's.
            BusUnavailable: the bus does not answer.
        """

    async def lag(self) -> int:
        """Records that this member's partitions hold beyond what it was given."""


class Reader(Protocol):
    """Reads partitions of its own choice, alone, without committing."""

    async def poll(self, *, limit: int, timeout: float) -> Sequence[Record]:
        """At most `limit` records that come next, or none after `timeout` seconds."""


class Bus(Protocol):
    """Partitioned logs."""

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> Future[int]:
        """Hand a record over; the future is its offset, once it stands in the log.

        Records handed over one after the other stand in their partition in that order, also when the first is not
        awaited. `partition` None means: by the key. Waits while too much is on its way.

        Raises:
            MessageTooLarge: the record is larger than the topic takes.
            TopicMissing: there is no such topic.
            BusUnavailable: (from the future, too) the bus does not answer.
        """

    def member(self, group: str, topics: Collection[str], listener: Listener) -> AbstractAsyncContextManager[Member]:
        """Join `group` to share `topics`. Leaving is at the end of the context; a crash is noticed by the group."""

    def reader(self, start: Mapping[Part, int | None]) -> AbstractAsyncContextManager[Reader]:
        """Read each partition from an offset, or from its present end where that is None."""

    async def span(self, part: Part, start: int, end: int) -> Sequence[Record]:
        """All records of `part` from offset `start` to the one before `end`, which must have been written.

        Raises:
            BusUnavailable: they do not come in time.
        """

    async def partitions(self, topic: str) -> int:
        """How many partitions `topic` has.

        Raises:
            TopicMissing: there is no such topic.
        """

    async def part_of(self, topic: str, key: str) -> Part:
        """Where the records of `topic` with that key are published, unless their publisher names a partition.

        Raises:
            TopicMissing: there is no such topic.
        """

    async def end(self, part: Part) -> int:
        """The offset that the next record of `part` will have."""

    async def offset_at(self, part: Part, timestamp: int) -> int:
        """The first offset whose record is not older than `timestamp` (ms since 1970); the end if there is none."""

    async def check(self) -> None:
        """Return if the bus answers.

        Raises:
            BusUnavailable: it does not.
        """
