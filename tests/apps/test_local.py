"""The whole pipe in one process, from a client's WebSocket to the model and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from websockets import connect

from apps.gateway.settings import GatewaySettings
from apps.health import Health
from apps.local import announce, listening, piped, serve
from apps.parts import INSTANT, NAMES, Parts, loaded
from apps.settings import ModelSettings, Settings, StageSettings
from pipeline.errors import AddressInUse, ModelLoadError
from pipeline.memory import MemoryBus
from pipeline.messages import Delta, Sampling, Turn, Utterance
from pipeline.secret import Secret
from tests.apps.clients import session
from tests.apps.gateway.harness import Client
from tests.apps.processes import started

DEADLINE_S = 30
QUESTION = "How much is a tent?"


@pytest.fixture
def settings(small_model: Path) -> Settings:
    """A small model and a free port."""
    return Settings(model=ModelSettings(name=str(small_model), threads=1), gateway=GatewaySettings(port=0))


@pytest.fixture
def instant(settings: Settings, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The instant engine with the small model's tokenizer."""
    monkeypatch.setattr("apps.parts.source", lambda model: str(small_model))
    return replace(settings, model=ModelSettings(name=INSTANT))


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


async def test_a_chat_goes_through_the_whole_pipe(settings: Settings) -> None:
    """A question comes back as the text that the engine alone would have said."""
    async with loaded(settings.model) as parts:
        alone = await text_of(parts)
    async with embedded(settings) as url, session(url) as client:
        await client.say(QUESTION, max_output_tokens=24)
        assert await client.answer() == alone


async def text_of(parts: Parts) -> str:
    """Answer the question with the stages called by hand."""
    whole = parts.chained(NAMES, StageSettings())
    turn = Turn("s", "t", (Utterance("user", QUESTION),), Sampling(max_output_tokens=24))
    assert whole.each is not None
    return "".join([out.text async for out in whole.each(turn) if isinstance(out, Delta)])


async def test_a_conversation_goes_on(settings: Settings) -> None:
    """A second question is answered in the same session."""
    async with embedded(settings) as url, session(url) as client:
        for _ in range(2):
            await client.say(QUESTION, max_output_tokens=8)
            assert await client.answer()


async def test_what_is_asked_of_the_tokens_holds_at_the_client(settings: Settings) -> None:
    """With a regular expression and logprobs asked for, the text matches, and each token comes with its likelihood."""
    said: list[Any] = []
    asked: Any = {"text": {"format": {"type": "regex", "pattern": "(a|bc){6}!"}}, "logprobs": 2, "temperature": 1.0}
    wrong: Any = {"text": {"format": {"type": "json_schema", "schema": {"type": "frog"}}}}
    async with embedded(settings) as url:
        client = AsyncOpenAI(base_url=f"http{url.removeprefix('ws')}/v1", api_key="none")
        async with client, client.realtime.connect(model="default") as connection:
            for options in (asked, wrong):
                item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
                await connection.conversation.item.create(item=item)
                await connection.response.create(response=options)
                said.append([])
                async for event in connection:
                    said[-1].append(event.to_dict())
                    if event.type == "response.done":
                        break

    deltas = [event for event in said[0] if event["type"] == "response.output_text.delta"]
    text = "".join(delta["delta"] for delta in deltas)
    logprobs = [one for delta in deltas for one in delta["logprobs"]]
    assert re.fullmatch("(a|bc){6}!", text)
    assert said[0][-1]["response"]["status"] == "completed"
    assert "".join(one["token"] for one in logprobs) == text
    assert all(one["logprob"] <= 0 and len(one["top_logprobs"]) == 2 for one in logprobs)
    error = said[1][-1]["response"]["status_details"]["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", "grammar")


async def test_sessions_do_not_mix(instant: Settings) -> None:
    """Several sessions at once get what each of them would get alone."""
    async with embedded(instant) as url, session(url) as one, session(url) as two:
        await one.say(QUESTION, max_output_tokens=16, seed=1)
        await two.say(QUESTION, max_output_tokens=16, seed=2)
        first, second = await asyncio.gather(one.answer(), two.answer())
        await one.say(QUESTION, max_output_tokens=16, seed=2)
        assert first != second
        assert await one.answer() == second


@pytest.mark.slow
async def test_the_demo_model_answers(demo_model: Path, settings: Settings) -> None:
    """With nothing configured the bundled demo model answers in words."""
    async with embedded(replace(settings, model=ModelSettings())) as url, session(url) as client:
        await client.say("What are your opening hours?")
        assert len((await client.answer()).split()) > 3


async def test_a_model_that_cannot_be_loaded_ends_the_program(settings: Settings, tmp_path: Path) -> None:
    """A folder without a model stops the start with an error that names it."""
    broken = replace(settings, model=ModelSettings(name=str(tmp_path)))
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(serve(broken, asyncio.Event()), DEADLINE_S)
    assert caught.group_contains(ModelLoadError, match=str(tmp_path))


async def test_an_address_that_is_taken_ends_the_program(settings: Settings) -> None:
    """A second program on the same port does not start, and says why."""
    async with MemoryBus() as bus, listening(bus, settings, Health(), "m") as gateway:
        port = int(gateway.address.rpartition(":")[2])
        second = replace(settings, gateway=GatewaySettings(port=port))
        with pytest.raises(BaseExceptionGroup) as caught:
            await asyncio.wait_for(serve(second, asyncio.Event()), DEADLINE_S)
    assert caught.group_contains(AddressInUse, match=str(port))


async def test_a_turn_is_told_its_end_before_the_log_is_gone(
    instant: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret in the settings makes nobody leave before the turn has ended: there is no other gateway to go to."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    monkeypatch.setattr("apps.local.running", lambda *_: nullcontext())  # stages that never answer
    monkeypatch.setattr("apps.local.announce", lambda at, *_: address.set_result(at))
    gateway = GatewaySettings(port=0, secret=Secret("x" * 32), drain_notice_s=0.01, drain_s=0.1)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(replace(instant, gateway=gateway), stop))
        async with connect(f"ws://{await address}/v1/realtime") as socket:
            client = Client(socket)
            await client.say(QUESTION)
            await client.send("response.create")
            await client.until("response.created")
            stop.set()
            response = (await client.until("response.done"))["response"]
            assert (await client.closed())[0] == 1012

    assert response["status_details"]["error"]["code"] == "shutting_down"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_program_serves_until_it_is_told_to_stop(small_model: Path, tmp_path: Path, unused_port: int) -> None:
    """`penstock up` serves a chat and its page, says where to look, ends well on SIGTERM, and uses the user's cache."""
    cache = {"XDG_CACHE_HOME": str(tmp_path), "PENSTOCK_MODEL_DISK_MB": "9"}
    options = ["--model", str(small_model), "--port", str(unused_port), "--set", "model.threads=1"]
    with started("up", *options, folder=tmp_path, port=unused_port, environment=cache) as program:
        await program.ready()
        async with asyncio.timeout(DEADLINE_S), session(program.url) as client:
            await client.say(QUESTION, max_output_tokens=8)
            assert await client.answer()
        status = await asyncio.to_thread(program.stop)
    assert status == 0, program.log
    assert f"http://127.0.0.1:{unused_port}" in program.log
    assert f"the disk cache {tmp_path}/penstock/kv: " in program.log


@pytest.mark.parametrize("keys_file", [None, Path("keys.json")])
def test_a_start_with_keys_says_how_a_page_gets_one(keys_file: Path | None, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled page has no key: where one is wanted, what is said at the start has the line that gives one."""
    announce("127.0.0.1:8080", "demo", GatewaySettings(keys_file=keys_file))
    said = capsys.readouterr().out
    line = '<script src="http://127.0.0.1:8080/widget.js" data-key="KEY"></script>  (the page above has no key'
    assert (line in said) == (keys_file is not None)
