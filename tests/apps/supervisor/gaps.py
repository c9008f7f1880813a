"""Measure what clients notice of dying workers: `python -m tests.apps.supervisor.gaps --kills 10`.

Starts a gateway, the text and postprocessing stages and supervised LLM workers against the Kafka of
KAFKA_BOOTSTRAP_SERVERS or one of our own; some clients ask at once, and in the middle of their answers a worker is
struck.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from pipeline.kafka import KafkaSettings, create_topics
from pipeline.topics import ROUTE
from tests import services
from tests.apps.supervisor.deployment import Deployment, answers, struck, talks

QUESTION = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How much is a tent?"}]}]


def say(text: str) -> None:
    """Tell the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def measure(chosen: argparse.Namespace, folder: Path, bootstrap: str) -> list[float]:
    """Strike so often, and return how long the last client waited for its next token each time, in seconds."""
    prefix = f"gaps-{os.getpid()}-"
    await create_topics(KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix), ROUTE, partitions=8)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": prefix,
        "PENSTOCK_MODEL_NAME": chosen.model,
        "PENSTOCK_MODEL_PACE_S": str(chosen.pace),
        "PENSTOCK_SUPERVISOR_SETTLED_S": "1",
        "XDG_RUNTIME_DIR": str(folder),
    }
    response = {
        "input": QUESTION,
        "conversation": "none",
        "max_output_tokens": chosen.tokens,
        "temperature": 0,
        "seed": 11,
    }
    number = signal.Signals[f"SIG{chosen.signal}"]
    waits = []
    async with AsyncExitStack() as stack:
        deployment = Deployment(stack, folder, environment)
        supervisor = deployment.supervise("--replicas", str(chosen.replicas), "--standby", str(chosen.standby))
        try:
            await deployment.ready(supervisor)
            clients = await talks(stack, deployment.gateway.url, chosen.clients)
            await answers(clients, response)
            expected = clients[0].text
            third = len(expected) // 3
            for kill in range(chosen.kills):
                await deployment.settled(chosen.replicas, chosen.standby)
                victim, waited = await struck(deployment, clients, response, number, characters=third)
                equal = sum(talk.text == expected for talk in clients)
                waits.append(waited)
                told = f"{equal}/{len(clients)} equal  load {os.getloadavg()[0]:.1f}"
                say(f"{kill + 1:3}  {victim.name}  {waited * 1000:7.0f} ms  {told}")
        finally:
            shutil.copy(supervisor._log, "/tmp/penstock-gaps.log")
    return waits


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--standby", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--model", default="instant")
    parser.add_argument("--pace", type=float, default=0.1, help="seconds between tokens")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--signal", choices=["KILL", "STOP"], default="KILL")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gaps-"))
    began = time.monotonic()
    try:
        with services.kafka() as kafka:
            waits = sorted(asyncio.run(measure(chosen, folder, kafka.bootstrap)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    last = waits[min(len(waits) - 1, int(0.95 * len(waits)))]
    say(
        f"from the signal to the next token (they come every {chosen.pace * 1000:.0f} ms), the last client's: "
        f"p50 {statistics.median(waits) * 1000:.0f} ms, p95 {last * 1000:.0f}, max {waits[-1] * 1000:.0f}; "
        f"{len(waits)} times SIG{chosen.signal}, {chosen.replicas} + {chosen.standby} workers, "
        f"{time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
