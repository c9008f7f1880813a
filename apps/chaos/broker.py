"""The broker of a run: one of its own, which may be killed, or one that was given, which is left alone."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from apps.broker.jars import kafka_jars
from apps.broker.node import commands, properties
from apps.broker.ports import HOST, unused_port
from apps.chaos.program import NotReady, Program, plain_environment
from pipeline.errors import BusUnavailable
from pipeline.kafka import KafkaSettings, describe_topics
from pipeline.topics import ROUTE

READY_S = 180.0
PREPARED_S = 60.0
POLL_S = 0.1
ATTEMPT_MS = 1_000


class Broker:
    """A Kafka broker of this run alone, with its data in `folder`."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder = folder
        self._logs = logs
        self._port = unused_port()
        self._program: Program | None = None

    @property
    def bootstrap(self) -> str:
        """Its address, host:port."""
        return f"{HOST}:{self._port}"

    async def start(self) -> None:
        """Start it for the first time; returns when it answers.

        Raises:
            JarsMissing: there is nothing to run.
            NotReady: it does not come up.
        """
        libs = await asyncio.to_thread(kafka_jars)
        if shutil.which("java") is None:
            raise NotReady("Kafka runs on Java, which is not here; install it, or name a broker with --kafka HOST:PORT")
        rows = properties(HOST, self._port, unused_port(), str(self._folder / "data"))
        prepare, run = commands(self._folder, libs, rows)
        environment = plain_environment()
        preparing = Program("broker-format", prepare, self._logs / "broker.log", environment)
        await preparing.start()
        if await preparing.ended(PREPARED_S) != 0:
            raise NotReady(f"Kafka's storage cannot be prepared:\n{preparing.tail()}")
        self._program = Program("broker", run, self._logs / "broker.log", environment)
        await self.restart()

    async def kill(self) -> None:
        """Kill -9; data and address stay."""
        assert self._program is not None
        await self._program.kill()

    async def restart(self) -> None:
        """Start it again after `kill`; returns when it answers.

        Raises:
            NotReady: it does not.
        """
        assert self._program is not None
        await self._program.start()
        settings = KafkaSettings(bootstrap=self.bootstrap, start_timeout_ms=ATTEMPT_MS)
        try:
            async with asyncio.timeout(READY_S):
                while not await _answers(settings):
                    self._program.refuse_dead()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise NotReady(f"Kafka did not answer within {READY_S:.0f} s; {self._program.log} tells more") from None

    async def stop(self) -> None:
        """End it for good; its data is of no more use."""
        if self._program is not None:
            await self._program.kill()


async def _answers(settings: KafkaSettings) -> bool:
    try:
        await describe_topics(settings, ROUTE[:1])
    except BusUnavailable:
        return False
    return True
