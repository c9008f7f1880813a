"""Reading: what members and readers have in common, on top of one aiokafka consumer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from pipeline.bus import Headers, Part, Record
from pipeline.errors import BusUnavailable
from pipeline.kafka.clients import connection
from pipeline.kafka.lookup import Lookup
from pipeline.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)

FETCH_WAIT_MS = 100
"""How long the broker holds a fetch open for lack of records.

aiokafka has one fetch at a time on its way to a broker, and a partition that is wanted again (after a seek, a pause, a
buffer run dry) waits for it to come back. Measured at 500 ms: 300 ms to the first record after a seek, and 5,000
messages/s of a backlog in one partition; at 100 ms: 75 ms and 9,000. Idle it costs .7 % of a core instead of .4 %.
"""

FETCH_BYTES = 512 << 10
"""Of a partition, at once. As much again may be prefetched."""

NO_POLL_LIMIT_MS = 2**31 - 1
"""A member whose loop is full for minutes does not poll, and shall not leave the group for it."""

GRACE_S = 0.05
CONFIRM_S = 2.0
NO_HEADERS: Headers = {}


class Source:
    """Records of some partitions, a poll at a time.

    aiokafka's `pause` throws away what is already here and fetches it again later. So this holds what came, hands it
    out when it is wanted, and asks for no more of a partition of which it still holds something.
    """

    def __init__(self, settings: KafkaSettings, lookup: Lookup) -> None:
        self._settings = settings
        self._lookup = lookup
        self._consumer: AIOKafkaConsumer = None
        self._parts: dict[Part, TopicPartition] = {}
        self._held: dict[Part, deque[Any]] = {}
        self._next: dict[Part, int] = {}
        self._paused: set[Part] = set()
        self._settled = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None
        self._starved: dict[Part, float] = {}
        self._suspects: dict[Part, int] = {}
        self._broken = False
        self._loop = asyncio.get_running_loop()

    def _options(self) -> dict[str, Any]:
        """What the consumer is told."""
        return {
            **connection(self._settings),
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "fetch_max_wait_ms": FETCH_WAIT_MS,
            "max_partition_fetch_bytes": FETCH_BYTES,
            "max_poll_interval_ms": NO_POLL_LIMIT_MS,
        }

    def _own(self, taps: Iterable[TopicPartition]) -> None:
        """Read these from now on, from wherever the consumer stands."""
        self._parts = {self._lookup.part(tap): tap for tap in taps}
        self._paused &= self._parts.keys()
        for state in (self._held, self._next, self._starved, self._suspects):
            state.clear()

    def pause(self, part: Part) -> None:
        """See `Member.pause`."""
        self._paused.add(part)
        self._starved.pop(part, None)

    def resume(self, part: Part) -> None:
        """See `Member.resume`."""
        self._paused.discard(part)
        self._nudge()

    def seek(self, part: Part, offset: int) -> None:
        """See `Member.seek`."""
        if (tap := self._parts.get(part)) is None:
            return
        self._held.pop(part, None)
        self._starved.pop(part, None)
        self._next[part] = offset
        self._consumer.seek(tap, offset)
        self._nudge()

    def _nudge(self) -> None:
        """Let a poll that is waiting look again."""
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._loop.time())

    def _refuse(self) -> None:
        """Raise what ends the reading, if something does."""

    async def poll(self, *, limit: int, timeout: float) -> Sequence[Record]:
        """See `Member.poll`."""
        deadline = self._loop.time() + timeout
        while True:
            self._refuse()
            if self._broken:
                await self._mend()
            if self._settled.is_set() and (records := self._take(limit)):
                return records
            left = deadline - self._loop.time()
            if left <= 0 and timeout > 0:
                await self._look_for_stall()
                return ()
            await self._wait(deadline, max(left, 0.0))
            if timeout <= 0:
                self._refuse()
                return self._take(limit) if self._settled.is_set() else ()

    async def _wait(self, deadline: float, left: float) -> None:
        """Until there is something to look at, or the time is over."""
        try:
            async with asyncio.timeout_at(deadline + GRACE_S) as self._waiting:
                await self._settled.wait()
                await self._fill(left)
        except TimeoutError:
            pass
        finally:
            self._waiting = None

    async def _fill(self, seconds: float) -> None:
        """Hold what came of the partitions that are wanted and of which nothing is held, waiting for it if need be."""
        wanted = [part for part in self._parts if part not in self._paused and part not in self._held]
        if not wanted:
            await asyncio.sleep(seconds)
            return
        every = len(wanted) == len(self._parts)
        began = self._loop.time()
        try:
            came = await self._consumer.getmany(
                *(() if every else [self._parts[part] for part in wanted]), timeout_ms=math.ceil(seconds * 1000)
            )
        except OffsetOutOfRangeError as error:
            await self._out_of_range(error.args[0])
        except NoOffsetForPartitionError as error:
            self._consumer.seek(error.args[0], 0)
        except ConsumerStoppedError:
            await asyncio.sleep(GRACE_S)
        except KafkaError as error:
            raise self._failed(error) from error
        else:
            self._hold(came)
            self._count_starved(wanted, self._loop.time() - began)

    def _failed(self, error: KafkaError) -> Exception:
        return BusUnavailable(self._settings.bootstrap, str(error))

    def _hold(self, came: Mapping[TopicPartition, list[Any]]) -> None:
        for tap, records in came.items():
            if not self._settled.is_set():
                self._consumer.seek(tap, records[0].offset)  # a new owner's listener has not been told yet
                continue
            part = self._lookup.part(tap)
            self._held[part] = deque(records)
            self._starved.pop(part, None)

    def _take(self, limit: int) -> list[Record]:
        """At most `limit` of what is held; a partition from which some was taken comes last next time."""
        records: list[Record] = []
        for part in [part for part in self._held if part not in self._paused]:
            held = self._held.pop(part)
            room = limit - len(records)
            if len(held) > room:
                records += [record_of(part, held.popleft()) for _ in range(room)]
                self._held[part] = held
            else:
                records += [record_of(part, raw) for raw in held]
            self._next[part] = records[-1].offset + 1
            if len(records) == limit:
                break
        return records

    async def lag(self) -> int:
        """See `Member.lag`."""
        ends = await self._lookup.ends(list(self._parts))
        return sum([max(0, end - await self._position(part)) for part, end in ends.items() if part in self._parts])

    async def _position(self, part: Part) -> int:
        """The offset of the next record that is handed out."""
        if part in self._next:
            return self._next[part]
        if part in self._held:
            return int(self._held[part][0].offset)
        return await self._start_of(part)

    async def _start_of(self, part: Part) -> int:
        """Where the reading of `part` begins, of which nothing has come yet."""
        return (await self._lookup.beginnings([part]))[part]

    async def _out_of_range(self, asked: Mapping[TopicPartition, int]) -> None:
        """Go on at the oldest record there is; what is gone is told."""
        taps = {self._lookup.part(tap): tap for tap in asked}
        first, last = await self._lookup.beginnings(list(taps)), await self._lookup.ends(list(taps))
        for part, tap in taps.items():
            if asked[tap] > last[part]:
                log.error("%s was cut at %d, before %d; it is read again", part, last[part], asked[tap])
            elif asked[tap] > 0 or part in self._next:
                gone = first[part] - asked[tap]
                log.error("%d records of %s are gone: deleted before they were read, from %d", gone, part, asked[tap])
            self._consumer.seek(tap, first[part])
            self._next.pop(part, None)

    def _count_starved(self, wanted: list[Part], seconds: float) -> None:
        for part in wanted:
            if part not in self._held:
                self._starved[part] = self._starved.get(part, 0.0) + seconds

    async def _look_for_stall(self) -> None:
        """A consumer can hang after a broker's restart without any sign: more is there, and nothing comes."""
        patience = self._settings.stall_timeout_ms / 1000
        hungry = [part for part, seconds in self._starved.items() if seconds >= patience]
        if not hungry:
            return
        try:
            ends = await self._lookup.ends(hungry)
            behind = {part: await self._position(part) for part in hungry if part in self._parts}
        except BusUnavailable:
            return
        behind = {part: position for part, position in behind.items() if position < ends[part]}
        for part in hungry:
            self._starved[part] = patience - CONFIRM_S if part in behind else 0.0
        stuck = [part for part, position in behind.items() if self._suspects.get(part) == position]
        self._suspects = behind
        if stuck:
            log.error("nothing comes of %s although there is more; connecting anew", stuck)
            await self._mend()

    async def _mend(self) -> None:
        """Replace the consumer; where that fails, the next poll tries again."""
        self._broken = mended = False
        try:
            await self._renew()
            mended = True
        finally:
            self._broken = self._broken or not mended

    async def _renew(self) -> None:
        """Replace the consumer."""
        raise NotImplementedError


def record_of(part: Part, raw: Any) -> Record:
    """What aiokafka gives, as a record of `part`."""
    return Record(
        part,
        raw.offset,
        raw.timestamp,
        raw.key.decode("utf-8", "replace") if raw.key else "",
        raw.value or b"",
        {name: (value or b"").decode("utf-8", "replace") for name, value in raw.headers} if raw.headers else NO_HEADERS,
    )
