"""The touchstone: a worker is killed in the middle of an answer, and the client never notices."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

from pipeline.kafka import KafkaSettings, create_topics
from pipeline.topics import ROUTE
from tests.apps.clients import session
from tests.apps.processes import Penstock, started
from tests.servers import unused_port
from tests.services import KafkaService

DEADLINE_S = 200
QUESTION = "How much is a tent for two?"
TOKENS = 60
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "seed": 11}


class Deployment:
    """A gateway, the text and postprocessing stages, and as many LLM workers as asked for, against one Kafka."""

    def __init__(self, stack: ExitStack, folder: Path, environment: dict[str, str]) -> None:
        self._stack, self._folder, self._environment = stack, folder, environment
        port = unused_port()
        self.gateway = self._start("gateway", "--port", str(port), port=port)
        self.others = [self.stage("text"), self.stage("postprocess")]
        self.workers: list[Penstock] = []

    def stage(self, name: str) -> Penstock:
        """Start a process of that stage."""
        port = unused_port()
        return self._start("stage", name, "--health-port", str(port), port=port)

    def _start(self, *arguments: str, port: int) -> Penstock:
        return self._stack.enter_context(
            started(*arguments, folder=self._folder, port=port, environment=self._environment)
        )

    async def ready(self, workers: int) -> None:
        """Return when everything serves, `workers` LLM workers among it."""
        while len(self.workers) < workers:
            self.workers.append(self.stage("llm"))
        for process in (self.gateway, *self.others, *self.workers):
            await process.ready()

    async def kill_the_busy_worker(self) -> None:
        """Kill -9 the LLM worker that has a turn in hand."""
        while True:
            for worker in self.workers:
                if await asyncio.to_thread(in_hand, worker):
                    worker.kill()
                    self.workers.remove(worker)
                    return


def in_hand(worker: Penstock) -> int:
    """Return how many turns a worker is working on."""
    with urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=5) as answer:
        found = re.search(r'penstock_stage_in_hand\{stage="llm"\} (\d+)', answer.read().decode())
    return int(found[1]) if found else 0


@pytest.fixture
def environment(kafka: KafkaService, small_model: Path) -> dict[str, str]:
    """Topics of its own, a slow small model, and the shortest absence that any broker allows."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": f"takeover-{unused_port()}-",
        "PENSTOCK_KAFKA_SESSION_TIMEOUT_MS": "6000",
        "PENSTOCK_MODEL_NAME": str(small_model),
        "PENSTOCK_MODEL_THREADS": "1",
        "PENSTOCK_MODEL_PACE_S": "0.06",
    }


@pytest.fixture
async def deployment(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment on topics of its own."""
    settings = KafkaSettings(
        bootstrap=environment["KAFKA_BOOTSTRAP_SERVERS"], topic_prefix=environment["PENSTOCK_KAFKA_TOPIC_PREFIX"]
    )
    await create_topics(settings, ROUTE, partitions=4)
    with ExitStack() as stack:
        yield Deployment(stack, tmp_path, environment)


def question() -> list[dict[str, object]]:
    """The question as an input of its own, so that no conversation grows."""
    return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_answer_survives_the_death_of_its_worker(deployment: Deployment) -> None:
    """Kill -9 in mid-answer, and another worker goes on: the client gets one unbroken answer, the undisturbed one.

    Greedy and sampled with a seed, one after the other, with a fresh worker in between.
    """
    async with asyncio.timeout(DEADLINE_S):
        await deployment.ready(workers=1)
        async with session(deployment.gateway.url) as client:
            for sampling in ({"temperature": 0}, SAMPLED):
                await deployment.ready(workers=2)
                asked = {"input": question(), "conversation": "none", "max_output_tokens": TOKENS, **sampling}
                await client.ask(asked)
                expected = await client.answer()
                assert len(expected) > TOKENS

                await client.ask(asked)
                await client.until(characters=len(expected) // 4)
                await deployment.kill_the_busy_worker()
                at_death = len(client.text)
                assert await client.answer() == expected
                assert at_death < len(expected), "the worker was killed too late to prove anything"
