"""`Bus` on Kafka: what the parts beside this file do, put together and watched."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, Self

from aiokafka.partitioner import murmur2

from pipeline.bus import Headers, Listener, Part, Record
from pipeline.errors import BusUnavailable
from pipeline.kafka.lookup import Lookup
from pipeline.kafka.member import KafkaMember
from pipeline.kafka.publisher import Publisher
from pipeline.kafka.reader import KafkaReader
from pipeline.kafka.settings import KafkaSettings
from pipeline.kafka.source import record_of
from pipeline.kafka.spans import Spans

log = logging.getLogger(__name__)

WATCH_S = 2.0
COUNTS_KEPT_S = 300.0
KEYS_KEPT = 1 << 16
SPAN_S = 10.0


class State(NamedTuple):
    """Whether Kafka answers, since when (seconds since 1970), and why not."""

    up: bool
    since: float
    why: str = ""


class KafkaBus:
    """Partitioned logs in Kafka. Enter it to connect; a broker that is lost later comes back by itself.

    What is published meanwhile waits, and is delivered once the broker is back. `state` tells how it stands.
    """

    def __init__(self, settings: KafkaSettings | None = None) -> None:
        self._settings = settings or KafkaSettings()
        self._lookup = Lookup(self._settings)
        self._partition_of = lru_cache(KEYS_KEPT)(_partition_of)
        self._members: set[KafkaMember] = set()
        self.state = State(up=False, since=time.time(), why="not started")

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BusUnavailable: Kafka cannot be reached.
        """
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._lookup.close)
            await self._lookup.start()
            self._spans = Spans(self._settings)
            closing.push_async_callback(self._spans.close)
            self._publisher = Publisher(self._settings)
            closing.push_async_callback(self._publisher.close)
            await self._publisher.start()
            self.state = State(up=True, since=time.time())
            closing.push_async_callback(_ended, asyncio.create_task(self._watch()))
            self._closing = closing.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Deliver what is on its way, and disconnect."""
        await self._closing.aclose()

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> Future[int]:
        """See `Bus.publish`."""
        count = self._lookup.known(topic) or await self.partitions(topic)
        raw = key.encode()
        if partition is None:
            partition = self._partition_of(raw, count)
        elif not 0 <= partition < count:
            raise ValueError(f"topic {topic!r} has no partition {partition}, only {count}")
        return await self._publisher.send(Part(topic, partition), raw, value, headers)

    @asynccontextmanager
    async def member(
        self, group: str, topics: Collection[str], listener: Listener
    ) -> AsyncGenerator[KafkaMember, None]:
        """See `Bus.member`."""
        for topic in topics:
            await self.partitions(topic)
        member = KafkaMember(self._settings, self._lookup, group, topics, listener)
        self._members.add(member)
        try:
            await member.join()
            yield member
        finally:
            self._members.discard(member)
            await member.close()

    @asynccontextmanager
    async def reader(self, start: Mapping[Part, int | None]) -> AsyncGenerator[KafkaReader, None]:
        """See `Bus.reader`."""
        reader = KafkaReader(self._settings, self._lookup)
        try:
            await reader.open(start)
            yield reader
        finally:
            await reader.close()

    async def span(self, part: Part, start: int, end: int) -> Sequence[Record]:
        """See `Bus.span`."""
        raw = await self._spans.read(self._lookup.tap(part), start, end, SPAN_S)
        return [record_of(part, one) for one in raw]

    async def prepare(self, topics: Collection[str]) -> None:
        """Learn now where `topics` are, and connect what reads spans: who takes over from another has no time for it.

        Costs nothing but that time where it fails: what is needed is asked for again.
        """
        with suppress(BusUnavailable):
            there = await self._lookup.existing(topics)
            await self._spans.locate([self._settings.topic_prefix + topic for topic in there])
            await self._lookup.locate(there)
            await self._publisher.locate(there)

    async def partitions(self, topic: str) -> int:
        """See `Bus.partitions`."""
        return await self._lookup.partitions(topic)

    async def part_of(self, topic: str, key: str) -> Part:
        """See `Bus.part_of`."""
        return Part(topic, self._partition_of(key.encode(), await self.partitions(topic)))

    async def end(self, part: Part) -> int:
        """See `Bus.end`."""
        return (await self._lookup.ends([part]))[part]

    async def offset_at(self, part: Part, timestamp: int) -> int:
        """See `Bus.offset_at`."""
        found = await self._lookup.offset_at(part, timestamp)
        return await self.end(part) if found is None else found

    def identify(self, identity: str) -> None:
        """Join groups as the static member `identity` from now on."""
        self._settings = replace(self._settings, group_instance_id=identity)

    async def lag(self) -> int:
        """Records that the members here were not yet given of their partitions.

        Raises:
            BusUnavailable: Kafka does not answer.
        """
        return sum([await member.lag() for member in self._members])

    async def check(self) -> None:
        """See `Bus.check`; within two seconds."""
        try:
            await self._lookup.check()
        except BusUnavailable as error:
            self._note(error.why)
            raise
        self._note("")

    def _note(self, why: str) -> None:
        """Tell of a change, once."""
        if self.state.up == (not why):
            return
        before, self.state = self.state, State(up=not why, since=time.time(), why=why)
        if why:
            log.error("Kafka at %s is lost: %s; trying to reach it again", self._settings.bootstrap, why)
        else:
            log.warning("Kafka at %s is back after %.1f s", self._settings.bootstrap, time.time() - before.since)

    async def _watch(self) -> None:
        """See that it answers, and that what is published is acknowledged in time."""
        forget_at = time.monotonic() + COUNTS_KEPT_S
        while True:
            await asyncio.sleep(WATCH_S)
            self._publisher.expire()
            if time.monotonic() >= forget_at:
                self._lookup.forget()
                forget_at += COUNTS_KEPT_S
            try:
                await self.check()
            except BusUnavailable:
                continue


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _partition_of(key: bytes, count: int) -> int:
    """As Java's clients do it, so that others' records of the same key stand in the same partition."""
    return int(murmur2(key) & 0x7FFFFFFF) % count
