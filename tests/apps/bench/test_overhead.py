"""The measurement of what the pipeline adds: the same prompt both ways, and all that came is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from apps.bench.client import Unanswered
from apps.bench.overhead import Plan, bus_of, kinds_of, overhead
from apps.bench.sessions import Load, sessions
from apps.bench.startup import startup
from apps.settings import ModelSettings, Settings
from pipeline.errors import SettingsError
from pipeline.kafka import KafkaSettings
from pipeline.topics import ROUTE
from tests.services import KafkaService

DEADLINE_S = 50


@pytest.fixture
def settings(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A small model, whose tokenizer the instant engine has, too."""
    monkeypatch.setattr("apps.parts.source", lambda model: str(small_model))
    return Settings(model=ModelSettings(name=str(small_model), threads=1))


async def test_the_pipe_and_the_engine_answer_the_same_prompt(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ways get as many answers of as many tokens, for both engines."""
    path = tmp_path / "overhead.json"
    plan = Plan(n=3, tokens=4, interval=0.01)
    await asyncio.wait_for(overhead(settings, plan, kafka=None, kinds=["instant", "model"], path=path), DEADLINE_S)
    outcomes = json.loads(path.read_text())["outcomes"]
    assert [(one["engine"], one["bus"], one["tokens"]) for one in outcomes] == [
        ("instant", "embedded", 4),
        ("model", "embedded", 4),
    ]
    for one in outcomes:
        for figure in (one["first_ms"], one["per_token_ms"]):
            assert figure["engine_alone"]["n"] == figure["whole_pipe"]["n"] == 3
    assert "open loop" in capsys.readouterr().out


@pytest.mark.slow
async def test_over_kafka_too(
    settings: Settings, kafka: KafkaService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a broker every engine is measured over it as well, on topics of its own."""
    path = tmp_path / "overhead.json"
    work = overhead(settings, Plan(n=2, tokens=4, interval=0.01), kafka=kafka.bootstrap, kinds=["instant"], path=path)
    await asyncio.wait_for(work, DEADLINE_S)
    assert [one["bus"] for one in json.loads(path.read_text())["outcomes"]] == ["embedded", "kafka"]


async def topics_of(kafka: KafkaService, prefix: str) -> list[str]:
    """Return the names of the topics that begin with `prefix`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        return [name for name in await admin.list_topics() if name.startswith(prefix)]
    finally:
        await admin.close()


async def until_gone(kafka: KafkaService, prefix: str) -> None:
    """Return when no topic begins with `prefix`: a deletion takes the broker a moment."""
    async with asyncio.timeout(DEADLINE_S):
        while await topics_of(kafka, prefix):  # noqa: ASYNC110 - it is asked anew each time
            await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("end", [None, KeyError("oh"), asyncio.CancelledError()], ids=["well", "error", "Ctrl-C"])
async def test_no_topics_are_left_behind(kafka: KafkaService, end: BaseException | None, unused_port: int) -> None:
    """However a measurement ends, its topics are deleted."""
    prefix = f"left-{unused_port}-"
    settings = Settings(kafka=KafkaSettings(topic_prefix=prefix))
    with contextlib.suppress(KeyError, asyncio.CancelledError):
        async with bus_of(settings, kafka.bootstrap):
            assert len(await topics_of(kafka, prefix + "bench-")) == len(ROUTE)
            if end is not None:
                raise end
    await until_gone(kafka, prefix)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_topics_that_cannot_be_deleted_are_named(
    own_kafka: KafkaService, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the broker has gone, what ended the measurement is what is told, and which topics stay is a warning."""
    settings = Settings(kafka=KafkaSettings(start_timeout_ms=500))

    async def killed() -> None:
        async with bus_of(settings, own_kafka.bootstrap):
            await asyncio.to_thread(own_kafka.kill)
            raise KeyError("oh")

    with pytest.raises(KeyError, match="oh"):
        await asyncio.wait_for(killed(), 100)
    assert "are left behind: Kafka at" in caplog.text
    assert "-turns" in caplog.text


def test_an_engine_that_is_none_is_refused() -> None:
    """An unknown engine is named, and the known ones beside it."""
    with pytest.raises(SettingsError, match="no 'torch'; there are instant, model"):
        kinds_of(["torch"])


async def test_many_sessions_are_all_answered(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every session gets all its answers, and the bare server sends as many frames."""
    path = tmp_path / "sessions.json"
    load = Load(sessions=5, turns=2, tokens=4, rounds=2)
    await asyncio.wait_for(sessions(settings, load, path=path), DEADLINE_S)
    result = json.loads(path.read_text())
    assert result["answers"] == 20
    assert result["frames"] > 20 * 4
    assert result["ratio"]["least"] <= result["ratio"]["median"] <= result["ratio"]["most"]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_start_is_timed_to_the_first_token(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is started, asked and ended, and what it took is told."""
    path = tmp_path / "startup.json"
    options = ["--model", str(small_model), "--set", "model.threads=1"]
    await asyncio.wait_for(startup(1, options, path=path), 150)
    assert json.loads(path.read_text())["first_token_s"]["n"] == 1


async def test_a_program_that_does_not_start_is_told() -> None:
    """Where the command ends instead of answering, that is the outcome."""
    with pytest.raises(Unanswered, match="ended with status 2"):
        await asyncio.wait_for(startup(1, ["--set", "nonsense=1"], path=None), DEADLINE_S)
