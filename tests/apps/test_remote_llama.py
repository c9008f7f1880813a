"""The engine for OpenAI-compatible servers, on a real one: llama-cpp-python's, with the demo model's very weights.

That takes ten minutes to build, so it is no dependency of the tests: these are skipped without it, and run after
`pip install 'llama-cpp-python[server]'`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from apps.generate import Answer, generate, prompt_of
from apps.parts import Parts, loaded
from apps.settings import ModelSettings
from pipeline.messages import Prompt, Sampling
from stages.llm.stage import Engine
from tests.guard import Guarded
from tests.servers import unused_port
from tests.stages.llm.running import answer, begin

MISSING = [
    name for name in ("llama_cpp", "gguf", "fastapi", "pydantic_settings", "starlette_context") if not find_spec(name)
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"no {MISSING}: a real server needs `pip install 'llama-cpp-python[server]'` (ten minutes)",
    ),
]

QUESTION = "How much is a tent?"
DEADLINE_S = 60


@pytest.fixture(scope="module")
def llama(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the demo model in float32."""
    from apps.bench.llm_gguf import write_gguf

    folder, port = tmp_path_factory.mktemp("llama"), unused_port()
    write_gguf(demo_model, folder / "demo.gguf", "F32", spelt=True)
    options = {
        "model": folder / "demo.gguf",
        "model_alias": "demo",
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": 512,
        "n_threads": 1,
        "n_threads_batch": 1,
        "verbose": False,
        "interrupt_requests": False,  # or it would break an answer off for the next question
    }
    argv = [sys.executable, "-m", "llama_cpp.server"]
    server = Guarded(
        [*argv, *(str(part) for name, value in options.items() for part in (f"--{name}", value))], folder / "log"
    )
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()


@asynccontextmanager
async def parts_at(url: str, demo_model: Path) -> AsyncGenerator[Parts, None]:
    """The pipe's parts with that server's model, once it answers."""
    model = ModelSettings(engine="openai", name=str(demo_model), base_url=url, batch=1, max_wait_s=DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S), loaded(model) as parts:
        yield parts


async def said(parts: Parts, prompt: Prompt) -> Answer:
    """The answer, as a client would get it."""
    asked = Answer(prompt)
    await generate(parts, asked, lambda text: None)
    return asked


async def asking(parts: Parts, **sampling: object) -> Prompt:
    """The prompt of these tests."""
    chosen = Sampling(**{"max_output_tokens": 60, **sampling})  # type: ignore[arg-type]
    return await prompt_of(parts, QUESTION, chosen, system=None, raw=False)


def engine_of(parts: Parts) -> Engine:
    """The engine."""
    assert parts.engine is not None
    return parts.engine


async def test_the_same_weights_say_the_same_there(
    llama: str, demo_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Greedy, to the token; the server counts the prompt's tokens as we do, so nobody is warned of its tokenizer."""
    async with loaded(ModelSettings(name=str(demo_model), draft="none", threads=1, dtype="float32")) as ours:
        expected = await said(ours, await asking(ours))
    async with parts_at(llama, demo_model) as parts:
        got = await said(parts, await asking(parts))
        among_few = await said(parts, await asking(parts, temperature=1.0, top_k=1))

    assert (got.text, got.ids) == (expected.text, expected.ids)
    assert got.done is not None
    assert got.done.reason == "stop"
    assert among_few.ids == expected.ids
    assert "model.prompt_form" not in caplog.text


async def test_an_answer_is_gone_on_with_there(llama: str, demo_model: Path) -> None:
    """Behind what another worker said, wherever it stopped: the same answer, as this server is deterministic."""
    async with parts_at(llama, demo_model) as parts:
        prompt = await asking(parts)
        whole = (await said(parts, prompt)).ids
        for at in range(1, len(whole), 3):
            taken_over = Prompt(prompt.session, prompt.turn, prompt.ids, prompt.sampling, tuple(whole[:at]))
            rest, finish, _ = await answer(engine_of(parts), taken_over)
            assert (whole[:at] + rest, finish) == (whole, "stop")


async def test_it_ends_where_it_is_told_to(llama: str, demo_model: Path) -> None:
    """At a stop string, which it does not say, and after so many tokens; a bias is heeded."""
    async with parts_at(llama, demo_model) as parts:
        whole = await said(parts, await asking(parts))
        word = whole.text.split()[3]
        stopped = await said(parts, await asking(parts, stop=(word,)))
        short = await said(parts, await asking(parts, max_output_tokens=5))
        biased = await said(parts, await asking(parts, logit_bias=((whole.ids[0], -100.0),)))

    assert stopped.text == whole.text.partition(word)[0]
    assert short.ids == whole.ids[:5]
    assert short.done is not None
    assert short.done.reason == "length"
    assert biased.ids[0] != whole.ids[0]


async def test_giving_up_frees_it(llama: str, demo_model: Path) -> None:
    """It answers one after the other: the next one need not wait for a long one that nobody wants any more."""
    async with parts_at(llama, demo_model) as parts:
        prompt = await asking(parts, max_output_tokens=400, logit_bias=((parts.tokenizer.eos_token_id, -100.0),))
        began = time.perf_counter()
        await answer(engine_of(parts), prompt)
        whole_s = time.perf_counter() - began
        await begin(engine_of(parts), prompt, tokens=3)
        began = time.perf_counter()
        await answer(engine_of(parts), replaced(prompt, max_output_tokens=1))

    assert time.perf_counter() - began < whole_s / 2


def replaced(prompt: Prompt, **sampling: object) -> Prompt:
    """The prompt with another sampling."""
    return msgspec.structs.replace(prompt, sampling=msgspec.structs.replace(prompt.sampling, **sampling))
