"""The short schedule, as a user starts it: a real Kafka dies, workers and gateways die, and no client loses a thing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apps.speech import BUNDLED
from tests import services

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(460),
    pytest.mark.skipif(not services.jars_will_do(), reason="penstock chaos runs a Kafka of its own, on Java"),
]

DEADLINE_S = 400
STOP_S = 40
STARTED = "logs of all programs"
QUICKLY = ["--model", "instant", "--clients", "6", "--sessions", "6", "--pace", "0.06"]
NO_TORCH = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name == "torch" else found(name, *rest))
"""
"""Put before a program, it starts in a second instead of five: made-up tokens need no library of models."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the programs are started with."""
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}", "COLUMNS": "160"}


@asynccontextmanager
async def chaos(
    *arguments: str, folder: Path, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`penstock chaos …`, whose logs go to `folder`; asked to end if it has not in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "apps.cli", "chaos", *QUICKLY, "--logs", str(folder), *arguments,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_S):
            await process.communicate()


def those_of(logs: Path) -> list[int]:
    """The processes that write to a file in `logs`, or were told to read their settings there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            files = [os.readlink(one) for one in process.glob("fd/*")]
            if any(str(logs) in text for text in (*files, (process / "environ").read_text(errors="replace"))):
                found.append(int(process.name))
    return found


async def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, environment: dict[str, str]) -> None:
    """Every kind of fault once or more, with clients that resume; the report says so, in all its forms."""
    report, page, logs = tmp_path / "report.json", tmp_path / "page.html", tmp_path / "logs"
    options = ["--minutes", "0.6", "--every", "3.5", "--faults", "kill,pause,rebalance,broker,gateway,leave"]
    files = ["--json", str(report), "--html", str(page)]
    async with chaos(*options, *files, folder=logs, environment=environment) as process:
        async with asyncio.timeout(DEADLINE_S):
            said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said

    found = json.loads(report.read_text())
    assert found["kept"]
    assert found["terminal_events"] == {"1": found["turns"]}
    assert (found["characters_lost"], found["characters_repeated"], found["tokens_lost"]) == (0, 0, 0)
    assert found["equal"] == found["compared"] == found["turns"] > 20
    assert sum(found["faults"].values()) >= 5
    assert "All guarantees were kept" in page.read_text()
    assert {path.name for path in logs.iterdir()} >= {"broker.log", "gateway-0.log", "llm.log", "penstock.toml"}


@pytest.mark.skipif(not (BUNDLED / "model.bin").is_file(), reason="the bundled recogniser is not there")
async def test_every_word_is_heard_once(tmp_path: Path, environment: dict[str, str]) -> None:
    """Workers and a gateway are killed while clients speak: no turn, no word and no sample is lost or comes twice."""
    report, logs = tmp_path / "report.json", tmp_path / "logs"
    options = ["--seed", "2", "--voices", "2", "--clients", "2", "--sessions", "2", "--minutes", "0.35", "--every", "5"]
    faults = ["--faults", "kill,gateway", "--json", str(report)]
    async with chaos(*options, *faults, folder=logs, environment=environment) as process:
        async with asyncio.timeout(DEADLINE_S):
            said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said

    found = json.loads(report.read_text())
    spoken = found["spoken"]
    assert "gateway" in found["faults"]
    assert sum(found["faults"].values()) >= 2
    assert (spoken["lost"], spoken["repeated"]) == (0, 0)
    assert spoken["equal"] == spoken["compared"] == spoken["turns"] >= 6
    assert spoken["words"] > 20
    answers = spoken["answers"]
    assert answers["exact"] == answers["sounded"] > 0
    assert answers["seconds"] > 5


async def test_ctrl_c_ends_all_its_programs(tmp_path: Path, environment: dict[str, str]) -> None:
    """None of the dozen is left, whatever they were doing."""
    logs = tmp_path / "logs"
    async with chaos("--minutes", "5", folder=logs, environment=environment) as process, asyncio.timeout(DEADLINE_S):
        assert process.stdout is not None
        while STARTED not in (await process.stdout.readline()).decode():
            pass
        while not (logs / "text.log").exists():  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert process.returncode == 130
    config = (logs / "penstock.toml").read_text()
    assert "bootstrap" in config
    async with asyncio.timeout(STOP_S):
        while left := await asyncio.to_thread(those_of, logs):
            assert process.pid not in left
            await asyncio.sleep(0.1)
