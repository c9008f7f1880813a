"""Supervised workers against a real Kafka: one dies in mid-answer, and its clients hardly notice."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pipeline.kafka import KafkaSettings, create_topics
from pipeline.topics import ROUTE
from tests.apps.processes import started
from tests.apps.supervisor.deployment import Deployment, answers, strike, struck, talks
from tests.apps.supervisor.fake_worker import lives
from tests.servers import unused_port
from tests.services import KafkaService

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DEADLINE_S = 300
FAILED = 1
GAP_S = 5.0
"""With some hundreds of ms in mind, on a machine that runs a dozen other programs on one core."""
QUESTION = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How much is a tent?"}]}]
ASKED = {"input": QUESTION, "conversation": "none", "max_output_tokens": 32, "temperature": 0.9, "seed": 11}


@pytest.fixture
async def environment(kafka: KafkaService) -> dict[str, str]:
    """Topics of its own, and an engine that makes tokens up, ten a second."""
    prefix = f"supervised-{unused_port()}-"
    await create_topics(KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix), ROUTE, partitions=4)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": prefix,
        "PENSTOCK_MODEL_NAME": "instant",
        "PENSTOCK_MODEL_PACE_S": "0.1",
    }


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a runtime folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def deployment(environment: dict[str, str], tmp_path: Path, place: Path) -> AsyncIterator[Deployment]:
    """A deployment on topics of its own."""
    async with AsyncExitStack() as stack:
        yield Deployment(stack, tmp_path, {**environment, "XDG_RUNTIME_DIR": str(place)})


@pytest.mark.alone
async def test_a_worker_killed_or_stopped_in_mid_answer_is_replaced_at_once(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are the undisturbed ones; nobody is rebalanced; a drain ends well, and a kill -9 takes all.

    One start of everything for all of it, for that is what takes the time.
    """
    async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
        supervisor = deployment.supervise("--replicas", "2", "--standby", "1", "--set", "supervisor.silent_s=3")
        await deployment.ready(supervisor)
        clients = await talks(stack, deployment.gateway.url, 4)
        await answers(clients, ASKED)
        expected = clients[0].text
        for number, bound in ((signal.SIGKILL, GAP_S), (signal.SIGSTOP, 3.0 + GAP_S)):
            before = {row.identity: row for row in await deployment.settled(2, 1)}
            assert all(row.parts for row in before.values() if row.identity)
            victim, gap = await struck(deployment, clients, ASKED, number, characters=len(expected) // 3)
            assert [talk.text for talk in clients] == [expected] * len(clients)
            with capsys.disabled():
                print(f"\n{number.name}: next token after {gap:.2f} s, load {os.getloadavg()[0]:.1f}")  # noqa: T201
            assert gap < bound
            after = {row.identity: row for row in await deployment.settled(2, 1)}
            assert after[victim.identity].pid == before[""].pid
            assert after[victim.identity].parts == victim.parts
            assert after[victim.identity].restarts == victim.restarts + 1
            assert victim.pid is not None
            assert not lives(victim.pid)
            (other,) = {identity for identity in before if identity} - {victim.identity}
            assert (after[other].pid, after[other].parts) == (before[other].pid, before[other].parts)

        assert await asyncio.to_thread(supervisor.stop) == 0, supervisor.log
        assert '"worker": "llm-0[' in supervisor.log


async def test_real_workers_die_with_their_supervisor(deployment: Deployment) -> None:
    """Kill -9 of the supervisor ends its workers, one that is stopped among them; a new one has the same ids."""
    async with asyncio.timeout(DEADLINE_S):
        first = deployment.supervise("--replicas", "2")
        await deployment.ready(first)
        rows = await deployment.settled(2, 0)
        strike(rows[0], signal.SIGSTOP)
        os.kill((await asyncio.to_thread(deployment.report)).pid, signal.SIGKILL)
        pids = [row.pid for row in rows if row.pid is not None]
        while any(lives(pid) for pid in pids):  # noqa: ASYNC110 (they are no children of ours)
            await asyncio.sleep(0.05)
        second = deployment.supervise("--replicas", "2")
        await deployment.ready(second)
        again = await deployment.settled(2, 0)
        assert [row.identity for row in again] == [row.identity for row in rows]


async def test_a_route_that_is_not_there_ends_the_supervisor(
    environment: dict[str, str], tmp_path: Path, place: Path
) -> None:
    """What no restart mends is told once all workers have met it, and that is the end."""
    elsewhere = {**environment, "PENSTOCK_KAFKA_TOPIC_PREFIX": "nowhere-", "XDG_RUNTIME_DIR": str(place)}
    options = ["text", "--replicas", "2", "--standby", "1"]
    with started("stage", *options, folder=tmp_path, port=unused_port(), environment=elsewhere) as supervisor:
        async with asyncio.timeout(DEADLINE_S):
            assert await supervisor.ended() == FAILED
    last = " ".join(supervisor.log.split()[-40:])
    assert "no worker can start: topic 'turns' does not exist; create the route with `penstock topics create`" in last
    assert "Traceback" not in supervisor.log
