"""The route's topics in Kafka: created where they are missing, compared where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from pipeline.errors import BusUnavailable
from pipeline.kafka.clients import connected, in_time, stop
from pipeline.kafka.lookup import Admin
from pipeline.kafka.settings import KafkaSettings
from pipeline.topics import Topic

ANSWER_S = 30.0
VISIBLE_EVERY_S = 0.02


class Described(NamedTuple):
    """A topic as it is; `partitions` and `replication` are 0 where it does not exist, `differs` says what is amiss."""

    topic: str
    partitions: int
    replication: int
    settings: Mapping[str, str]
    differs: tuple[str, ...]

    @property
    def exists(self) -> bool:
        """Whether there is such a topic."""
        return self.partitions > 0


class Created(NamedTuple):
    """What became of a topic; `differs` says in what it is not as it should be."""

    topic: str
    outcome: Literal["created", "exists", "differs"]
    partitions: int
    differs: tuple[str, ...]


def wanted(topic: Topic, settings: KafkaSettings) -> Mapping[str, str]:
    """What Kafka is told about `topic`."""
    return {
        "retention.ms": str(topic.keep_ms),
        "message.timestamp.type": "LogAppendTime",  # so that `offset_at` finds what was written, by one clock
        "max.message.bytes": str(settings.max_request_bytes),
    }


async def create_topics(
    settings: KafkaSettings, route: Sequence[Topic], *, partitions: int, replication: int = 1
) -> Sequence[Created]:
    """Create what is missing of `route`; what exists is left as it is, and told if it differs.

    Raises:
        BusUnavailable: Kafka does not answer, or refuses.
    """
    before = await describe_topics(settings, route, partitions=partitions)
    missing = [topic for topic, found in zip(route, before, strict=True) if not found.exists]
    new = [
        NewTopic(
            settings.topic_prefix + topic.name,
            topic.partitions or partitions,
            replication,
            topic_configs=dict(wanted(topic, settings)),
        )
        for topic in missing
    ]
    if new:
        await _create(settings, new)
    made = {topic.name for topic in missing}
    return [
        Created(topic.name, "created", topic.partitions or partitions, ())
        if topic.name in made
        else Created(topic.name, "differs" if found.differs else "exists", found.partitions, found.differs)
        for topic, found in zip(route, before, strict=True)
    ]


async def describe_topics(
    settings: KafkaSettings, route: Sequence[Topic], *, partitions: int | None = None
) -> Sequence[Described]:
    """Each topic of `route` as it is in Kafka. `partitions`: how many those should have that do not say so themselves.

    Raises:
        BusUnavailable: Kafka does not answer.
    """
    names = [settings.topic_prefix + topic.name for topic in route]
    admin = await connected(lambda: Admin(settings), settings)
    try:
        found = await in_time(admin.client.describe_topics(names), settings, ANSWER_S)
        existing = {one["topic"]: one["partitions"] for one in found if one["partitions"]}
        configs = await _configs(admin, settings, existing)
    finally:
        await stop(admin)
    return [
        _described(topic, existing.get(name, ()), configs.get(name, {}), wanted(topic, settings), partitions)
        for topic, name in zip(route, names, strict=True)
    ]


def _described(
    topic: Topic, found: Sequence[Any], has: Mapping[str, str], should: Mapping[str, str], partitions: int | None
) -> Described:
    differs = [f"{name} is {has[name]}, not {value}" for name, value in should.items() if has.get(name, value) != value]
    number = topic.partitions or partitions
    if found and number is not None and len(found) != number:
        differs.insert(0, f"it has {len(found)} partitions, not {number}")
    replication = len(found[0]["replicas"]) if found else 0
    return Described(topic.name, len(found), replication, has, tuple(differs))


async def _configs(admin: Admin, settings: KafkaSettings, names: Collection[str]) -> Mapping[str, Mapping[str, str]]:
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    (answer,) = await in_time(admin.client.describe_configs(asked), settings, ANSWER_S)
    return {name: {key: value for key, value, *_ in entries} for _, _, _, name, entries in answer.resources}


async def _create(settings: KafkaSettings, new: Sequence[NewTopic]) -> None:
    admin = await connected(lambda: Admin(settings), settings)
    try:
        answer = await in_time(admin.client.create_topics(list(new)), settings, ANSWER_S)
        _refuse(settings, answer)
        await in_time(_visible(admin, [topic.name for topic in new]), settings, ANSWER_S)
    finally:
        await stop(admin)


def _refuse(settings: KafkaSettings, answer: Any) -> None:
    for name, code, *why in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another may have been faster
            raise BusUnavailable(settings.bootstrap, f"topic {name!r} cannot be created: {why[0] if why else error}")


async def _visible(admin: Admin, names: Collection[str]) -> None:
    """Brokers hear of a new topic a moment after the controller has created it."""
    while True:
        found = await admin.client.describe_topics(list(names))
        if all(one["partitions"] and all(part["leader"] >= 0 for part in one["partitions"]) for one in found):
            return
        await asyncio.sleep(VISIBLE_EVERY_S)
