"""The gateway on a real broker: the same conversation, and a broker that goes and comes back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.kafka import KafkaBus, KafkaSettings, create_topics
from pipeline.topics import ROUTE
from tests.apps.gateway.harness import Running, connected, gateway, text_of, until
from tests.apps.gateway.test_serving import get
from tests.services import KafkaService


@asynccontextmanager
async def on_kafka(kafka: KafkaService, **changed: Any) -> AsyncGenerator[Running, None]:
    """Run a gateway and stand-ins for its stages on a broker, with topics of their own."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=f"{uuid.uuid4().hex[:12]}.")
    await create_topics(settings, ROUTE, partitions=4)
    async with KafkaBus(settings) as bus, gateway(bus=bus, **changed) as running:
        await until(lambda: running.hub.problem is None)
        yield running


async def test_a_conversation_over_kafka(kafka: KafkaService) -> None:
    """Sessions on a real broker are answered in order, each with its own words."""
    async with on_kafka(kafka) as running:

        async def converse(number: int) -> list[str]:
            async with connected(running) as client:
                return [text_of(await client.ask(f"{number}.{turn}")) for turn in range(3)]

        said = await asyncio.gather(*(converse(number) for number in range(10)))

    assert said == [[f"You said: {number}.{turn}" for turn in range(3)] for number in range(10)]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_broker_that_goes_and_comes_back(own_kafka: KafkaService) -> None:
    """Without its log the gateway says so and refuses; when it is back, so is the service, without a restart."""
    async with on_kafka(own_kafka, publish_timeout_s=2.0, patience_s=100.0) as running:
        async with connected(running) as client:
            assert text_of(await client.ask("before")) == "You said: before"
            await asyncio.to_thread(own_kafka.kill)
            await client.say("lost")
            assert (await client.closed())[0] == 1013
        unready = await get(running, "/readyz")
        assert (unready.status_code, set(unready.json()["reasons"]) & {"bus"}) == (503, {"bus"})

        await asyncio.to_thread(own_kafka.restart)
        async with asyncio.timeout(60):
            while (await get(running, "/readyz")).status_code != 200:  # noqa: ASYNC110 - as a balancer would
                await asyncio.sleep(0.2)
        async with connected(running) as client:
            assert text_of(await client.ask("after")) == "You said: after"
