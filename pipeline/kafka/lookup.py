"""Questions about topics and offsets, each answered within a deadline."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.bus import Part
from pipeline.errors import TopicMissing
from pipeline.kafka.clients import connected, connection, in_time, stop
from pipeline.kafka.settings import KafkaSettings

ANSWER_S = 5.0
CHECK_S = 2.0


class Admin:
    """aiokafka's admin client, which can be stopped like the others."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.client = AIOKafkaAdminClient(**connection(settings))

    async def start(self) -> None:
        """Connect."""
        await self.client.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self.client.close()


class Lookup:
    """Asks, and keeps the number of partitions of the topics that were asked for."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._counts: dict[str, int] = {}
        self._admin: Admin | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect."""
        settings = self._settings
        self._admin = await connected(lambda: Admin(settings), settings)
        self._consumer = await connected(lambda: AIOKafkaConsumer(**connection(settings)), settings)

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await stop(self._consumer)
        if self._admin is not None:
            await stop(self._admin)

    def tap(self, part: Part) -> TopicPartition:
        """Kafka's name of `part`."""
        return TopicPartition(self._settings.topic_prefix + part.topic, part.number)

    def part(self, tap: TopicPartition) -> Part:
        """Our name of Kafka's partition."""
        return Part(tap.topic.removeprefix(self._settings.topic_prefix), tap.partition)

    def known(self, topic: str) -> int | None:
        """How many partitions `topic` has, if that was asked before."""
        return self._counts.get(topic)

    def forget(self) -> None:
        """Ask again for the numbers of partitions, which may have grown."""
        self._counts.clear()

    async def partitions(self, topic: str) -> int:
        """How many partitions `topic` has."""
        (found,) = await self.describe([topic])
        if not found["partitions"]:
            raise TopicMissing(topic)
        self._counts[topic] = len(found["partitions"])
        return self._counts[topic]

    async def existing(self, topics: Collection[str]) -> list[str]:
        """Those of `topics` that there are."""
        found = zip(topics, await self.describe(topics), strict=True)
        return [topic for topic, described in found if described["partitions"]]

    async def locate(self, topics: Collection[str]) -> None:
        """Learn where the partitions of `topics` are: else the first question about them waits for that.

        Raises:
            BusUnavailable: Kafka does not answer.
        """
        assert self._consumer is not None
        client = self._consumer._client  # noqa: SLF001 (nothing public learns it before it is asked)
        for topic in topics:
            knowing = client._wait_on_metadata(self._settings.topic_prefix + topic)  # noqa: SLF001
            await in_time(knowing, self._settings, ANSWER_S)

    async def describe(self, topics: Collection[str]) -> list[dict[str, Any]]:
        """Kafka's description of each of `topics`; without partitions where there is no such topic."""
        assert self._admin is not None
        names = [self._settings.topic_prefix + topic for topic in topics]
        found = await in_time(self._admin.client.describe_topics(names), self._settings, ANSWER_S)
        return sorted(found, key=lambda one: names.index(one["topic"]))

    async def check(self) -> None:
        """Return if a broker answers."""
        assert self._admin is not None
        await in_time(self._admin.client.describe_topics([]), self._settings, CHECK_S)

    async def ends(self, parts: Collection[Part]) -> Mapping[Part, int]:
        """The offset that the next record of each will have."""
        assert self._consumer is not None
        return await self._offsets(self._consumer.end_offsets, parts)

    async def beginnings(self, parts: Collection[Part]) -> Mapping[Part, int]:
        """The offset of the oldest record that each still has."""
        assert self._consumer is not None
        return await self._offsets(self._consumer.beginning_offsets, parts)

    async def _offsets(self, ask: Any, parts: Collection[Part]) -> Mapping[Part, int]:
        await self._existing(parts)
        found = await in_time(ask([self.tap(part) for part in parts]), self._settings, ANSWER_S)
        return {self.part(tap): offset for tap, offset in found.items()}

    async def offset_at(self, part: Part, timestamp: int) -> int | None:
        """The first offset of `part` that is not older, if there is one."""
        assert self._consumer is not None
        await self._existing([part])
        tap = self.tap(part)
        found = await in_time(self._consumer.offsets_for_times({tap: timestamp}), self._settings, ANSWER_S)
        return None if found[tap] is None else int(found[tap].offset)

    async def _existing(self, parts: Collection[Part]) -> None:
        """Otherwise aiokafka would ask for a missing topic until the request times out."""
        for topic in {part.topic for part in parts}:
            if topic not in self._counts:
                await self.partitions(topic)
