"""Reading stretches through one consumer: connected beforehand, given up where it hangs, and back after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from aiokafka import AIOKafkaConsumer

from pipeline.bus import Part
from pipeline.errors import BusUnavailable
from pipeline.kafka import KafkaBus
from tests.pipeline.buses import FIRST, MANY, ONE, fill, kafka_bus, numbers, settings_for
from tests.services import KafkaService

pytestmark = pytest.mark.kafka


@pytest.fixture
async def bus(kafka: KafkaService) -> AsyncGenerator[KafkaBus, None]:
    """A bus with topics of its own."""
    async with kafka_bus(settings_for(kafka)) as bus:
        yield bus


async def test_who_has_prepared_reads_and_asks_without_learning_anything(kafka: KafkaService) -> None:
    """The standby's clients know the topics' leaders, and its reading consumer is connected already."""
    async with kafka_bus(settings_for(kafka)) as bus:
        await bus.prepare([MANY.name, ONE.name, "nowhere"])
        consumer, asking, outbox = bus._spans._consumer, bus._lookup._consumer, bus._publisher._outbox
        assert consumer is not None
        assert asking is not None
        assert outbox is not None
        prefix = bus._settings.topic_prefix
        for client in (asking._client, outbox.producer.client, consumer._client):
            known = client.cluster.topics()
            assert {prefix + MANY.name, prefix + ONE.name} <= known
        await fill(bus, ONE, 3)
        assert numbers(await bus.span(FIRST, 0, 3)) == [0, 1, 2]
        assert bus._spans._consumer is consumer


async def test_preparing_in_vain_is_no_error(bus: KafkaBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed is asked for again when it is."""

    async def refused(*_: object) -> list[str]:
        raise BusUnavailable("here", "nobody answers")

    monkeypatch.setattr(bus._lookup, "existing", refused)
    await bus.prepare([ONE.name])


async def test_a_stretch_that_does_not_come_is_given_up_with_its_consumer(
    bus: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked is told which, and the next who asks is served by another consumer."""
    await fill(bus, ONE, 3)
    assert numbers(await bus.span(FIRST, 0, 3)) == [0, 1, 2]
    hung = bus._spans._consumer

    async def nothing(*_: object, timeout_ms: int = 0, **__: object) -> dict[object, object]:
        await asyncio.sleep(timeout_ms / 1000)
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(AIOKafkaConsumer, "getmany", nothing)
        patch.setattr("pipeline.kafka.bus.SPAN_S", 0.5)
        with pytest.raises(BusUnavailable, match=r"one-0 could not be read up to offset 3 within 0\.5 s"):
            await bus.span(FIRST, 0, 3)

    assert numbers(await bus.span(FIRST, 0, 3)) == [0, 1, 2]
    assert bus._spans._consumer is not hung


async def test_it_rests_when_nothing_is_wanted(bus: KafkaBus) -> None:
    """All that it has is paused, so that it fetches nothing, and other partitions are read later all the same."""
    await fill(bus, ONE, 2)
    await fill(bus, MANY, 2, partition=3)
    await bus.span(FIRST, 0, 2)
    assert bus._spans._reading is not None
    await asyncio.wait_for(bus._spans._reading, 5)
    consumer = bus._spans._consumer
    assert consumer is not None
    assert consumer.paused() == consumer.assignment() != frozenset()
    assert numbers(await bus.span(Part("many", 3), 0, 2)) == [0, 1]


@pytest.mark.slow
async def test_a_stretch_is_read_after_the_brokers_restart(own_kafka: KafkaService) -> None:
    """Who asks while it is away is told; afterwards it is as before."""
    async with kafka_bus(settings_for(own_kafka)) as bus:
        await fill(bus, ONE, 5)
        await bus.span(FIRST, 0, 5)
        own_kafka.kill()
        asking = asyncio.create_task(bus.span(FIRST, 0, 5))
        await asyncio.to_thread(own_kafka.restart)
        try:
            assert numbers(await asking) == [0, 1, 2, 3, 4]
        except BusUnavailable:
            assert numbers(await bus.span(FIRST, 0, 5)) == [0, 1, 2, 3, 4]
