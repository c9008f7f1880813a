"""A stage as a process against Kafka: what it waits for, what ends it, and what it says of itself meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from apps.health import READY, Health, serving
from apps.settings import Settings, StageSettings
from apps.worker import WAITING, connected, running
from pipeline.errors import AddressInUse, BusUnavailable
from pipeline.kafka import KafkaSettings, create_topics
from pipeline.memory import MemoryBus
from pipeline.messages import Message
from pipeline.stage import Stage
from pipeline.topics import ROUTE, TURNS
from tests.apps.clients import session
from tests.apps.processes import Penstock, started
from tests.servers import unused_port
from tests.services import KafkaService

DEADLINE_S = 150
FAILED = 1


def fetched(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def test_health_is_told_over_http(unused_port: int) -> None:
    """Alive from the start, ready once it serves, and not while it has doubts."""
    health = Health("loading the model")
    async with serving(health.app(), "127.0.0.1", unused_port):
        assert await asyncio.to_thread(fetched, unused_port, "/livez") == (200, "alive\n")
        assert await asyncio.to_thread(fetched, unused_port, "/readyz") == (503, "loading the model\n")
        health.begin()
        assert await asyncio.to_thread(fetched, unused_port, "/readyz") == (200, f"{READY}\n")
        health.doubt = lambda: "Kafka is lost"
        assert await asyncio.to_thread(fetched, unused_port, "/readyz") == (503, "Kafka is lost\n")
        status, text = await asyncio.to_thread(fetched, unused_port, "/metrics")
    assert status == 200
    assert "process_resident_memory_bytes" in text


async def test_a_health_port_that_is_taken_is_told(unused_port: int) -> None:
    """Two programs cannot have the same health port, and the second says so."""
    async with serving(Health().app(), "127.0.0.1", unused_port):
        with pytest.raises(AddressInUse, match=str(unused_port)):
            async with serving(Health().app(), "127.0.0.1", unused_port):
                pass


class Away(MemoryBus):
    """A bus that does not answer the first `times` that it is asked for a topic."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def partitions(self, topic: str) -> int:
        """See `Bus.partitions`."""
        if self.times:
            self.times -= 1
            raise BusUnavailable("broker:1", "gone")
        return await super().partitions(topic)


async def echo(turn: Message) -> AsyncGenerator[Message, None]:
    """Say what came; nothing does."""
    yield turn


IDLE = Stage("idle", reads=TURNS, each=echo)


async def test_a_broker_lost_before_the_group_is_joined_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the first contact and its share of the partitions a stage is as patient as at its start, and says so."""
    monkeypatch.setattr("apps.worker.REJOIN_S", 0.01)
    health = Health()
    async with asyncio.timeout(10), Away(3) as bus, running([IDLE], bus, Settings(), health):
        assert health.problem() == ""
    assert [line.partition("; ")[0] for line in caplog.messages if " s more" in line] == [
        "Kafka at broker:1 cannot be reached: gone"
    ] * 3


async def test_a_broker_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `stage.wait_s`, and no sooner, the start is over."""
    monkeypatch.setattr("apps.worker.REJOIN_S", 0.01)
    patience = Settings(stage=StageSettings(wait_s=0.3))
    began = time.monotonic()
    health = Health()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(10), Away(10**9) as bus, running([IDLE], bus, patience, health):
            pass
    assert caught.group_contains(BusUnavailable, match="gone")
    assert time.monotonic() - began >= 0.3
    assert health.problem() == WAITING


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_real_broker_that_goes_while_the_stage_loads_is_waited_for(own_kafka: KafkaService) -> None:
    """Killed after the first contact and restarted seconds later, the broker finds the stage still there."""
    kafka = KafkaSettings(bootstrap=own_kafka.bootstrap, start_timeout_ms=2_000)
    await create_topics(kafka, ROUTE, partitions=2)
    settings = Settings(kafka=kafka, stage=StageSettings(wait_s=120))
    health = Health()
    async with asyncio.timeout(160), connected(settings) as bus, asyncio.TaskGroup() as tasks:
        await asyncio.to_thread(own_kafka.kill)

        async def back() -> None:
            await asyncio.sleep(8)
            assert health.problem() == WAITING
            await asyncio.to_thread(own_kafka.restart)

        tasks.create_task(back())
        async with running([IDLE], bus, settings, health):
            assert health.problem() == ""


@pytest.fixture
async def environment(kafka: KafkaService, small_model: Path) -> dict[str, str]:
    """Topics of its own and a small model."""
    prefix = f"worker-{unused_port()}-"
    await create_topics(KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix), ROUTE, partitions=2)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": prefix,
        "PENSTOCK_MODEL_NAME": str(small_model),
        "PENSTOCK_MODEL_THREADS": "1",
    }


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_broker_that_is_not_there_is_waited_for_and_then_given_up(tmp_path: Path, unused_port: int) -> None:
    """The start says what it waits for and how long, and ends with an error that names the address."""
    options = ["--kafka", f"127.0.0.1:{unused_port}", "--set", "stage.wait_s=5"]
    with started("stage", "text", *options, folder=tmp_path, port=unused_port) as worker:
        async with asyncio.timeout(DEADLINE_S):
            assert await worker.ended() == FAILED
    assert " s more" in worker.log
    assert f"penstock: Kafka at 127.0.0.1:{unused_port} cannot be reached" in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_route_that_is_not_there_ends_the_worker(environment: dict[str, str], tmp_path: Path) -> None:
    """Without topics a stage ends, and says how to create them."""
    elsewhere = {**environment, "PENSTOCK_KAFKA_TOPIC_PREFIX": "nowhere-"}
    with started("stage", "text", folder=tmp_path, port=unused_port(), environment=elsewhere) as worker:
        async with asyncio.timeout(DEADLINE_S):
            assert await worker.ended() == FAILED
    assert "penstock topics create" in worker.log
    assert "Traceback" not in worker.log


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_worker_whose_place_was_taken_ends(environment: dict[str, str], tmp_path: Path) -> None:
    """Of two processes under one static identity the first ends with an error, and does not fight."""
    static = {**environment, "PENSTOCK_KAFKA_GROUP_INSTANCE_ID": "text-0"}

    def start() -> Penstock:
        port = unused_port()
        return Penstock(["stage", "text", "--health-port", str(port)], tmp_path, port=port, environment=static)

    first = start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            await first.ready()
            second = start()
            try:
                await second.ready()
                assert await first.ended() == FAILED
            finally:
                second.kill()
    finally:
        first.kill()
    assert "no longer a member of group" in first.log


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_all_stages_in_one_process_answer_over_kafka(environment: dict[str, str], tmp_path: Path) -> None:
    """A gateway and one process with the three stages chained hold a chat, and both end well."""
    front, back = unused_port(), unused_port()
    gateway = started("gateway", "--port", str(front), folder=tmp_path, port=front, environment=environment)
    chained = ["stage", "text", "llm", "postprocess", "--health-port", str(back)]
    with gateway as one, started(*chained, folder=tmp_path, port=back, environment=environment) as other:
        async with asyncio.timeout(DEADLINE_S):
            await one.ready()
            await other.ready()
            async with session(one.url) as client:
                for _ in range(2):
                    await client.say("How much is a tent?", max_output_tokens=8)
                    assert await client.answer()
        assert await asyncio.to_thread(other.stop) == 0, other.log
        assert await asyncio.to_thread(one.stop) == 0, one.log
