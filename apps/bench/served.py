"""A Penstock of its own for a measurement: `penstock up`, or over Kafka a gateway and each stage as programs.

So what is measured shares no process with who measures.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from apps.bench.overhead import delete_topics
from apps.broker.ports import unused_port
from apps.chaos.program import NotReady, Program, fetched, penstock, plain_environment
from apps.parts import NAMES
from pipeline.kafka import KafkaSettings, create_topics
from pipeline.topics import ROUTE

READY_S = 180.0
STOP_S = 30.0
POLL_S = 0.1
PARTITIONS = 4


class Served:
    """Programs that serve at `url`; `ports` are where each tells its metrics."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.programs: dict[str, Program] = {}
        self.ports: dict[str, int] = {}

    @property
    def gateway(self) -> Program:
        """The program that clients speak to."""
        return next(iter(self.programs.values()))

    async def metrics(self) -> Mapping[str, float]:
        """All that all programs tell of themselves, summed over them and over labels.

        Raises:
            NotReady: one does not answer.
        """
        sums: defaultdict[str, float] = defaultdict(float)
        for name, port in self.ports.items():
            page = await fetched(f"http://127.0.0.1:{port}/metrics")
            if page is None:
                raise NotReady(f"{name} does not tell its metrics")
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    sums[sample.name] += sample.value
        return sums

    async def ready(self) -> None:
        """Return when all serve.

        Raises:
            NotReady: one has ended, or they take too long.
        """
        deadline = time.monotonic() + READY_S
        for name, port in self.ports.items():
            while await fetched(f"http://127.0.0.1:{port}/readyz") is None:
                self.programs[name].refuse_dead()
                if time.monotonic() > deadline:
                    raise NotReady(f"{name} is not ready after {READY_S:g} s:\n{self.programs[name].tail()}")
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def served(
    options: Sequence[str], folder: Path, kafka: KafkaSettings | None = None
) -> AsyncGenerator[Served, None]:
    """Serve meanwhile with `options`, in one program or, over `kafka`, in one for each part; logs go to `folder`.

    Raises:
        NotReady: it does not come up.
        BusUnavailable: there is no Kafka.
    """
    port = unused_port()
    one = Served(f"ws://127.0.0.1:{port}")
    own = [*options, "--set", "model.disk_mb=0", "--set", "gateway.metrics_open=true", "--set", "log.level=warning"]
    async with AsyncExitStack() as stack:
        if kafka is None:
            await _start(one, stack, "up", port, ["up", *own, "--port", str(port)], folder)
        else:
            chosen = replace(kafka, topic_prefix=f"{kafka.topic_prefix}bench-{time.time_ns()}-")
            await create_topics(chosen, ROUTE, partitions=PARTITIONS)
            stack.push_async_callback(delete_topics, chosen)
            own += ["--kafka", chosen.bootstrap, "--topic-prefix", chosen.topic_prefix]
            await _start(one, stack, "gateway", port, ["gateway", *own, "--port", str(port)], folder)
            for name in NAMES:
                health = unused_port()
                await _start(one, stack, name, health, ["stage", name, *own, "--health-port", str(health)], folder)
        await one.ready()
        yield one


async def _start(
    one: Served, stack: AsyncExitStack, name: str, port: int, arguments: Sequence[str], folder: Path
) -> None:
    program = penstock(name, arguments, folder, plain_environment())
    await program.start()
    stack.push_async_callback(program.stop, STOP_S)
    one.programs[name], one.ports[name] = program, port


def resident_mb(pid: int) -> float:
    """Memory of a process that is not swapped out."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(pid: int) -> int:
    """File descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
