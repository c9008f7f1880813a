"""The engine with a tier on disk: the same bits with it, without it, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.messages import Prompt
from stages.llm import batch as batch_module
from stages.llm import engine as engine_module
from stages.llm.cache.disk import LEAST, DiskCache
from stages.llm.engine import TorchEngine
from stages.llm.guessing.speculation import Speculation
from stages.llm.models.forward import forward
from stages.llm.models.model import LoadedModel, load_model
from tests.stages.conftest import DEMO
from tests.stages.llm.disks import LARGE, files, until
from tests.stages.llm.running import answer, begin, make_prompt, reference, some_ids

TURNS = 3
Conversation = tuple[list[list[int]], list[int]]
"""The answers, and how much of each prompt was cached."""
Logits = dict[tuple[int, ...], Tensor]
needs_demo = pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="the demo model is not built")


def fixed(model: LoadedModel, draft: LoadedModel | None, **_: Any) -> Speculation:
    """Guesses of one length, whatever they cost."""
    return Speculation(model, draft, mode="draft" if draft else "off", most=2, always=True)


@pytest.fixture(autouse=True)
def _reading_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes by measured times: whatever can be read is, and guesses are of one length."""
    monkeypatch.setattr(engine_module, "prompt_token", lambda *_: 1.0)
    monkeypatch.setattr(engine_module, "Speculation", fixed)


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> Logits:
    """All that the engines choose from, by the text before it."""
    seen: Logits = {}

    def watching(model: LoadedModel, works: Any) -> Tensor:
        result = forward(model, works)
        rows = iter(result.clone())
        for sequence in (work.sequence for work in works if work.last):
            text = (*sequence.ids, *sequence.drafts)
            seen.update((text[: len(sequence.ids) + ahead], next(rows)) for ahead in range(sequence.logits))
        return result

    monkeypatch.setattr(batch_module, "forward", watching)
    return seen


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    """The model we ship."""
    return load_model(DEMO, device="cpu")


@pytest.fixture(scope="module")
def demo_draft() -> LoadedModel:
    """Its draft."""
    return load_model(DEMO.parent / "draft", device="cpu")


def wait(tier: DiskCache, files: int) -> None:
    """Until so many files are written."""
    until(lambda: tier.counts.written >= files)


async def conversation(start: Callable[[], TorchEngine], *, restarts: bool = False) -> Conversation:
    """A few turns, each of which goes on after the one before."""
    answers, cached = [], []
    ids = some_ids(2 * LEAST, 1)
    engine = await start().__aenter__()
    for turn in range(TURNS):
        said, _, known = await answer(engine, make_prompt(ids, max_output_tokens=12, seed=turn))
        answers.append(said)
        cached.append(known)
        ids = [*ids, *said, *some_ids(20, 2 + turn)]
        if restarts:
            await engine.__aexit__(None, None, None)
            engine = await start().__aenter__()
        elif engine._disk:
            await asyncio.to_thread(wait, engine._disk, turn + 1)
    await engine.__aexit__(None, None, None)
    return answers, cached


@pytest.mark.slow
@needs_demo
@pytest.mark.parametrize("drafting", [False, True], ids=["alone", "with a draft"])
async def test_the_same_bits_with_and_without_and_after_a_restart(
    demo: LoadedModel, demo_draft: LoadedModel, tmp_path: Path, logits: Logits, drafting: bool
) -> None:
    """All that the demo model chooses from is the same, bit for bit, and so is what it says."""
    draft = demo_draft if drafting else None
    seen = []

    async def held(prefix_bytes: int, path: Path | None, *, restarts: bool = False) -> Conversation:
        def start() -> TorchEngine:
            disk = DiskCache(path, LARGE, demo, draft) if path else None
            return TorchEngine(demo, draft=draft, prefix_bytes=prefix_bytes, disk=disk)

        logits.clear()
        result = await conversation(start, restarts=restarts)
        seen.append(dict(logits))
        return result

    fresh, none = await held(0, None)
    host, from_host = await held(LARGE, None)
    disk, from_disk = await held(0, tmp_path / "a")
    restarted, from_restart = await held(LARGE, tmp_path / "b", restarts=True)

    assert fresh == host == disk == restarted
    assert none == [0] * TURNS
    assert from_host == from_disk == from_restart
    assert all(from_host[1:])
    for other in seen[1:]:
        shared = seen[0].keys() & other.keys()  # what was guessed wrong may differ: the draft may have read on later
        assert len(shared) >= sum(map(len, fresh))
        assert all(torch.equal(seen[0][text], other[text]) for text in shared)


@needs_demo
async def test_a_loaded_model_knows_its_files_again(demo: LoadedModel, tmp_path: Path) -> None:
    """A process that loads the same files anew has the same revision, so that it finds what another wrote."""
    assert load_model(DEMO, device="cpu").revision == demo.revision


async def test_what_is_in_memory_at_the_end_is_written(model: LoadedModel, tmp_path: Path) -> None:
    """Many sessions, finished and given up in the middle, are found by the next engine."""
    prompts = [make_prompt(some_ids(2 * LEAST, n), session=f"s{n}", max_output_tokens=60) for n in range(5)]

    def start() -> TorchEngine:
        return TorchEngine(model, disk=DiskCache(tmp_path, LARGE, model))

    async with start() as engine:
        asked = [asyncio.create_task(answer(engine, prompt)) for prompt in prompts[1:]]
        await begin(engine, prompts[0], 3)
    await asyncio.gather(*asked, return_exceptions=True)

    async with start() as engine:
        again = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))
        assert engine._disk is not None
        assert engine._disk.counts.hits == len(prompts)
    assert all(cached >= 2 * LEAST - 1 for _, _, cached in again)
    assert [(ids, finish) for ids, finish, _ in again] == [reference(model, prompt) for prompt in prompts]


async def test_many_sessions_with_little_memory(model: LoadedModel, tmp_path: Path) -> None:
    """With room for two sessions in memory and a few on disk, all answers are right, and some are found."""

    def prompt(session: int, turn: int) -> Prompt:
        ids = [part for number in range(turn + 1) for part in some_ids(LEAST, 10 * session + number)]
        return make_prompt(ids, session=f"s{session}", max_output_tokens=8)

    expected = {(session, turn): reference(model, prompt(session, turn)) for session in range(4) for turn in range(3)}
    size = 4 * LEAST * model.kv.token_bytes
    tier = DiskCache(tmp_path, 4 * size, model)
    async with TorchEngine(model, kv_bytes=2 * size, prefix_bytes=1, disk=tier) as engine:
        for turn in range(3):
            for session in (0, 1, 2, 3, 0, 2):
                ids, finish, _ = await answer(engine, prompt(session, turn))
                assert (ids, finish) == expected[session, turn]
            await asyncio.to_thread(until, lambda: not tier._waiting)

    assert tier.counts.hits > 0
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 4 * size


async def test_a_tier_that_cannot_work_changes_nothing(model: LoadedModel, tmp_path: Path) -> None:
    """Without a folder the engine answers all the same."""
    (tmp_path / "file").touch()
    prompt = make_prompt(some_ids(LEAST, 1), max_output_tokens=5)

    async with TorchEngine(model, prefix_bytes=0, disk=DiskCache(tmp_path / "file", LARGE, model)) as engine:
        for _ in range(2):
            assert (await answer(engine, prompt))[:2] == reference(model, prompt)
