"""The whole pipe around a model that runs in an OpenAI-compatible server: settings, chat, readiness, metrics."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from apps.gateway.settings import GatewaySettings
from apps.generate import Answer, generate, prompt_of
from apps.local import piped, serve
from apps.parts import NAMES, loaded
from apps.remote import check_remote
from apps.settings import ModelSettings, Settings, StageSettings
from pipeline.errors import SettingsError
from pipeline.memory import MemoryBus
from pipeline.messages import Sampling
from pipeline.secret import Secret
from stages.tokens import load_tokenizer
from tests.apps.clients import session
from tests.apps.test_worker import fetched
from tests.fake_openai import FakeServer, Fault, serving

DEADLINE_S = 30
QUESTION = "How much is a tent?"


@pytest.fixture
async def fake(small_model: Path) -> AsyncGenerator[FakeServer, None]:
    """A server whose model has the small model's tokenizer."""
    async with serving(FakeServer(tokenizer=load_tokenizer(small_model), models=("small",))) as running:
        yield running


@pytest.fixture
def settings(fake: FakeServer, small_model: Path) -> Settings:
    """The settings to use it."""
    model = ModelSettings(engine="openai", name=str(small_model), base_url=f"{fake.url}/")
    return Settings(model=model, gateway=GatewaySettings(port=0))


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncIterator[str]:
    """The whole pipe on the memory bus."""
    async with (
        asyncio.timeout(DEADLINE_S),
        MemoryBus() as bus,
        loaded(settings.model) as parts,
        piped(bus, parts, settings) as url,
    ):
        yield url


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_url": ""}, "model.base_url.*must be given"),
        ({"base_url": "localhost:8000"}, "model.base_url.*http://HOST"),
        ({"base_url": "ftp://localhost"}, "model.base_url.*http://HOST"),
        ({"base_url": "http://me:password@localhost/v1"}, "model.api_key"),
        ({"draft": "some/draft"}, "model.draft"),
    ],
)
def test_settings_that_name_no_server_stop_the_start(changes: dict[str, str], words: str) -> None:
    """The setting is named, and no password is said."""
    model = replace(ModelSettings(engine="openai", base_url="http://localhost:8000/v1"), **changes)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=words) as refusal:
        check_remote(model)
    assert "password@" not in str(refusal.value)


async def test_a_client_library_that_is_missing_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, "openai", None)
    for name in ("stages.llm.remote.answer", "stages.llm.remote.client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SettingsError, match=r"penstock\[openai\]"):
        async with loaded(settings.model):
            pass


async def test_a_chat_goes_through_the_whole_pipe(fake: FakeServer, settings: Settings) -> None:
    """A question comes back as the text that the server says, a second one in the same session as well."""
    fake.answer = "Größe: 你好 <|end|> 👩‍👩‍👧, it is 48 euros."
    async with embedded(settings) as url, session(url) as client:
        for _ in range(2):
            await client.say(QUESTION, max_output_tokens=100)
            assert await client.answer() == fake.answer

    assert QUESTION in fake.asked[0]["prompt"]
    assert fake.answer.partition("<")[0] in fake.asked[1]["prompt"]


async def test_a_stop_string_that_the_server_drops_ends_the_turn(fake: FakeServer, settings: Settings) -> None:
    """Nobody waits for it, and what was held back as its possible beginning is told."""
    fake.answer = "Hello there, how hot"
    async with embedded(settings) as url, session(url) as client:
        await client.say(QUESTION, stop=["hotter", "ot"])
        assert await client.answer() == "Hello there, how h"


async def test_a_server_that_breaks_off_again_and_again_is_not_noticed(fake: FakeServer, settings: Settings) -> None:
    """More often than the engine goes on by itself: the stage tries again, behind what was told already."""
    fake.faults = [Fault(after=3, drop=True)] * 5
    async with embedded(settings) as url, session(url) as client:
        await client.say(QUESTION)
        assert await client.answer() == fake.answer

    assert len(fake.asked) == 6


async def test_a_server_that_is_away_shows_in_the_readiness(
    fake: FakeServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program starts, says what it waits for, and serves when the server is there."""
    monkeypatch.setattr("stages.llm.remote.engine.LOOK_AGAIN_S", 0.05)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr("apps.local.announce", lambda at, *_: address.set_result(at))
    late = FakeServer(tokenizer=fake.tokenizer)
    async with serving(late):
        pass
    stop = asyncio.Event()
    model = replace(settings.model, base_url=late.url)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(replace(settings, model=model), stop))
        port = int((await address).rpartition(":")[2])
        status, words = await asyncio.to_thread(fetched, port, "/readyz")
        assert status == 503
        assert late.url in words
        async with serving(late):
            while (await asyncio.to_thread(fetched, port, "/readyz"))[0] != 200:  # noqa: ASYNC110 - a page
                await asyncio.sleep(0.02)
            async with session(f"ws://127.0.0.1:{port}") as client:
                await client.say(QUESTION)
                assert await client.answer() == late.answer
        stop.set()


async def test_metrics_tell_what_the_server_was_asked(fake: FakeServer, settings: Settings) -> None:
    """By the names of our own engine where they are the same."""
    fake.faults = [Fault(after=3, drop=True)]
    registry = CollectorRegistry()
    async with loaded(settings.model, registry=registry) as parts:
        prompt = await prompt_of(parts, QUESTION, Sampling(), system=None, raw=False)
        answer = Answer(prompt)
        await generate(parts, answer, lambda text: None)
        assert answer.text == fake.answer
        for name, value in {
            "num_requests_running": 0,
            "num_requests_waiting": 0,
            "remote_up": 1,
            "refused_total": 0,
            "remote_requests_total": 2,
            "remote_cuts_total": 1,
            "remote_errors_total": 0,
        }.items():
            assert registry.get_sample_value(f"penstock_llm_{name}") == value, name


async def test_the_stage_is_not_chained(fake: FakeServer, settings: Settings) -> None:
    """A chain begins its turns anew after a takeover, and the server may answer otherwise than before."""
    async with loaded(settings.model) as parts:
        assert parts.chained(["llm"], StageSettings()).name == "llm"
        with pytest.raises(SettingsError, match="stage of its own"):
            parts.chained(NAMES, StageSettings())


async def test_other_stages_need_no_server(settings: Settings) -> None:
    """They have the same settings, and load the tokenizer alone."""
    away = replace(settings.model, base_url="", api_key=Secret("key"))
    async with loaded(away, with_engine=False) as parts:
        assert parts.engine is None


@pytest.mark.slow
async def test_the_command_asks_the_server(fake: FakeServer, small_model: Path) -> None:
    """`penstock generate` with an engine elsewhere loads no weights and no torch."""
    options = ("--engine", "openai", "--base-url", fake.url, "--model", str(small_model), "--json", QUESTION)
    program = "import sys, apps.cli as cli, atexit; atexit.register(lambda: print('torch' in sys.modules)); cli.main()"
    command = [sys.executable, "-c", program, "generate", *options]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        out, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    told, torch = out.decode().splitlines()
    assert json.loads(told)["text"] == fake.answer
    assert torch == "False"
