"""Gateways as processes against a real Kafka, and stages that say what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from pipeline.headers import REPLY_TO
from pipeline.kafka import KafkaBus, KafkaSettings, create_topics
from pipeline.messages import Message
from pipeline.topics import ROUTE
from tests.apps.gateway.harness import Stages, spoken
from tests.apps.processes import Penstock, started
from tests.servers import unused_port
from tests.services import KafkaService

ANSWER = "one two three four five six"


class Deployment:
    """Gateways of one secret, each a process, and stages. `start` gives one more gateway, on a port if one is named."""

    def __init__(self, stages: Stages, start: Callable[[int], Penstock]) -> None:
        self.stages, self._start = stages, start
        self.gateways = [self.start() for _ in range(2)]

    def start(self, port: int | None = None) -> Penstock:
        """Start a gateway."""
        return self._start(port or unused_port())

    async def asked(self) -> tuple[list[Message], str]:
        """The next turn's answer in pieces, and where it is to go."""
        turn = await self.stages.asked.get()
        headers = self.stages.headers[self.stages.turns.index(turn)]
        return list(spoken(turn, ANSWER)), headers[REPLY_TO]

    async def say(self, pieces: list[Message], reply_to: str) -> None:
        """Let the stages say these."""
        for piece in pieces:
            await self.stages.say(piece, reply_to)


@asynccontextmanager
async def deployed(kafka: KafkaService, folder: Path, **settings_of: str) -> AsyncGenerator[Deployment, None]:
    """A deployment of two gateways, on topics of its own; `settings_of` are more variables of their environment."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=f"resume-{unused_port()}-")
    await create_topics(settings, ROUTE, partitions=4)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": settings.topic_prefix,
        "PENSTOCK_GATEWAY_SECRET": "of this deployment, and of no other one",
        **settings_of,
    }
    with ExitStack() as stack:

        def start(port: int) -> Penstock:
            gateway = started("gateway", "--port", str(port), folder=folder, port=port, environment=environment)
            return stack.enter_context(gateway)

        async with KafkaBus(settings) as bus, asyncio.TaskGroup() as tasks:
            stages = Stages(bus, lambda turn: ())
            answering = tasks.create_task(stages.run())
            await stages.ready.wait()
            yield Deployment(stages, start)
            answering.cancel()
