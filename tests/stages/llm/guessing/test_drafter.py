"""Guessing ahead changes the speed and never the answer, be the draft good, bad or broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelLoadError
from stages.llm import engine as engine_module
from stages.llm.engine import TorchEngine
from stages.llm.guessing.drafter import DraftModel
from stages.llm.guessing.speculation import Speculation
from stages.llm.models.model import LoadedModel, load_model
from tests.stages import models
from tests.stages.llm.running import answer, begin, make_prompt, reference, some_ids


@pytest.fixture(scope="module")
def drafts(load: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """A draft that is always right where the bits allow it, and one that hardly ever is."""
    bad = models.save(tmp_path_factory.mktemp("bad"), seed=1, num_hidden_layers=1, hidden_size=32)
    return {"perfect": load("llama"), "bad": load_model(bad, device="cpu")}


def fixed(length: int) -> Callable[..., Speculation]:
    """A speculation that always guesses so far."""
    return lambda model, draft, *, mode, most: Speculation(model, draft, mode=mode, most=length, always=True)


async def answers(model: LoadedModel, draft: LoadedModel | None, **ask: Any) -> list[tuple[Any, ...]]:
    """What an engine says to some prompts at once, while others are given up; and to each session's next turn."""
    async with TorchEngine(model, draft=draft) as engine:
        prompts = [make_prompt(some_ids(5 + 30 * n, n), session=f"s{n}", seed=n, **ask) for n in range(5)]
        noise = [begin(engine, make_prompt(some_ids(40, 50 + n), session=f"n{n}", **ask), n) for n in range(4)]
        first, _ = await asyncio.gather(asyncio.gather(*(answer(engine, p) for p in prompts)), asyncio.gather(*noise))
        nexts = [
            make_prompt([*prompt.ids, *said[0], 7, 8, 9], session=prompt.session, seed=1, **ask)
            for prompt, said in zip(prompts, first, strict=True)
        ]
        second = await asyncio.gather(*(answer(engine, prompt) for prompt in nexts))
    return [*first, *second]


@pytest.mark.parametrize("length", [1, 3, 6])
@pytest.mark.parametrize("quality", ["perfect", "bad"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_answers_are_the_same_with_a_draft(
    model: LoadedModel,
    drafts: dict[str, LoadedModel],
    monkeypatch: pytest.MonkeyPatch,
    quality: str,
    length: int,
    temperature: float,
) -> None:
    """With any draft and any length, greedy or not, the answers and what was cached are those without."""
    ask: dict[str, Any] = {"max_output_tokens": 17, "temperature": temperature, "top_p": 0.95}
    monkeypatch.setattr(engine_module, "Speculation", fixed(length))

    assert await answers(model, drafts[quality], **ask) == await answers(model, None, **ask)


async def test_good_draft_saves_steps(
    model: LoadedModel, drafts: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft that guesses right gives several tokens a step, and the answer is `generate`'s."""
    prompt = make_prompt(some_ids(20, 3), max_output_tokens=21)
    runs = 0
    monkeypatch.setattr(engine_module, "Speculation", fixed(4))

    ids: list[int] = []
    async with TorchEngine(model, draft=drafts["perfect"]) as engine:
        step = engine._batch.step

        def counting() -> Any:
            nonlocal runs
            runs += 1
            return step()

        monkeypatch.setattr(engine._batch, "step", counting)
        ids, finish, _ = await answer(engine, prompt)

    assert (ids, finish) == reference(model, prompt)
    assert runs <= 6


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 5, 6])
async def test_end_within_the_guesses(
    model: LoadedModel, drafts: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """An answer ends where it must, also in the middle of what was guessed right."""
    monkeypatch.setattr(engine_module, "Speculation", fixed(4))

    async with TorchEngine(model, draft=drafts["perfect"]) as engine:
        prompt = make_prompt(some_ids(20, 3), max_output_tokens=stop_at)
        assert (await answer(engine, prompt))[:2] == reference(model, prompt)


async def test_broken_draft_is_left_out(
    model: LoadedModel, drafts: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the draft fails, the answer goes on without it."""
    prompt = make_prompt(some_ids(20, 3), max_output_tokens=20)
    monkeypatch.setattr(DraftModel, "guess", lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))

    async with TorchEngine(model, draft=drafts["bad"]) as engine:
        assert (await answer(engine, prompt))[:2] == reference(model, prompt)


async def test_length_is_chosen_by_itself(model: LoadedModel, drafts: dict[str, LoadedModel]) -> None:
    """Without a fixed length, costs are measured, and the answer stays the same."""
    prompt = make_prompt(some_ids(20, 3), max_output_tokens=40)

    async with TorchEngine(model, draft=drafts["perfect"]) as engine:
        assert (await answer(engine, prompt))[:2] == reference(model, prompt)


def test_draft_with_other_tokens_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    """A draft must have the model's tokens."""
    folder = models.save(tmp_path)
    tokenizer = models.byte_level(size=400)
    tokenizer.save_pretrained(folder)

    with pytest.raises(ModelLoadError, match="its tokens are different ones"):
        Speculation(model, load_model(folder, device="cpu"))
