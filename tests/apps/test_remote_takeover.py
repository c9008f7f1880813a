"""The touchstone, for a model that runs in a server: a worker is killed in mid-answer, and the client never notices."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.kafka import KafkaSettings, create_topics
from pipeline.topics import ROUTE
from stages.tokens import load_tokenizer
from tests.apps.clients import session
from tests.apps.test_takeover import Deployment
from tests.fake_openai import FakeServer, serving
from tests.servers import unused_port
from tests.services import KafkaService

DEADLINE_S = 150
ANSWER = "".join(f"{number}: Größe 你好. " for number in range(20))


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_an_answer_survives_the_death_of_its_worker(
    kafka: KafkaService, small_model: Path, tmp_path: Path
) -> None:
    """Another worker asks the server for the rest, behind what was said: the client gets one unbroken answer."""
    prefix = f"remote-{unused_port()}-"
    await create_topics(KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix), ROUTE, partitions=4)
    tokenizer = load_tokenizer(small_model)
    async with serving(FakeServer(answer=ANSWER, pause_s=0.02, tokenizer=tokenizer)) as fake:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "PENSTOCK_KAFKA_TOPIC_PREFIX": prefix,
            "PENSTOCK_KAFKA_SESSION_TIMEOUT_MS": "6000",
            "PENSTOCK_MODEL_ENGINE": "openai",
            "PENSTOCK_MODEL_BASE_URL": fake.url,
            "PENSTOCK_MODEL_NAME": str(small_model),
        }
        with ExitStack() as stack:
            deployment = Deployment(stack, tmp_path, environment)
            async with asyncio.timeout(DEADLINE_S):
                await deployment.ready(workers=2)
                async with session(deployment.gateway.url) as client:
                    await client.say("How much is a tent?", max_output_tokens=450)
                    await client.until(characters=len(ANSWER) // 4)
                    await deployment.kill_the_busy_worker()
                    at_death = len(client.text)
                    assert await client.answer() == ANSWER

    assert at_death < len(ANSWER), "the worker was killed too late to prove anything"
    assert len(fake.asked) == 2
    first, second = (asked["prompt"] for asked in fake.asked)
    assert second.startswith(first)
    assert ANSWER.startswith(second.removeprefix(first))
    assert len(second) - len(first) >= at_death
