"""Guessing never changes an answer: whoever guesses, however far, in whatever company, greedy or sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.errors import ModelLoadError
from pipeline.messages import Prompt
from stages.llm import engine as engine_module
from stages.llm.engine import TorchEngine
from stages.llm.guessing.speculation import Mode, Speculation
from stages.llm.models.model import LoadedModel, load_model
from tests.stages import models
from tests.stages.llm.running import answer, make_prompt, some_ids

pytestmark = pytest.mark.slow  # all of them together: every kind of model, with weights

FARTHEST = 8
NOISE = 0.01
"""On the target's weights, so that the draft is right sometimes: about half of the time."""


@pytest.fixture(scope="module")
def draft(load: Callable[[str], LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The target with its weights perturbed."""
    folder = tmp_path_factory.mktemp("perturbed")
    network = AutoModelForCausalLM.from_pretrained(load("llama").name)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(NOISE * torch.randn(weight.shape, generator=noise))
    network.save_pretrained(folder)
    models.byte_level().save_pretrained(folder)
    return load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def expected(load: Callable[[str], LoadedModel]) -> dict[int, tuple[Any, ...]]:
    """What the model says to each prompt, alone and without guesses."""

    async def alone() -> dict[int, tuple[Any, ...]]:
        async with TorchEngine(load("llama"), speculation="off", prefix_bytes=0) as engine:
            return {n: await answer(engine, prompt(n)) for n in range(32)}

    return asyncio.run(alone())


def prompt(number: int, speculation: int | None = None) -> Prompt:
    """Prompts of all lengths, half of them sampled; every third answer has three tokens only, and so repeats itself."""
    ask: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": number} if number % 2 else {}
    if number % 3 == 0:
        ask["logit_bias"] = tuple((token, 60.0) for token in (10, 11, 12))
    ids = some_ids(3 + 2 * number, number)
    return make_prompt(ids, session=f"s{number}", max_output_tokens=11 + number % 3, speculation=speculation, **ask)


async def answers(
    model: LoadedModel, draft: LoadedModel, mode: Mode, prompts: dict[int, Prompt]
) -> tuple[dict[int, tuple[Any, ...]], Speculation]:
    """What an engine says to all `prompts` at once."""
    async with TorchEngine(model, draft=draft, speculation=mode, ahead=FARTHEST, prefix_bytes=0) as engine:
        said = await asyncio.gather(*(answer(engine, one) for one in prompts.values()))
        assert engine._speculation is not None
        return dict(zip(prompts, said, strict=True)), engine._speculation


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses are made whether or not they pay."""

    def always(model: LoadedModel, draft: LoadedModel | None, *, mode: Mode, most: int) -> Speculation:
        return Speculation(model, draft, mode=mode, most=most, always=True)

    monkeypatch.setattr(engine_module, "Speculation", always)


@pytest.mark.parametrize("length", range(1, FARTHEST + 1))
@pytest.mark.parametrize("mode", ["draft", "ngram", "both"])
async def test_every_length(
    model: LoadedModel, draft: LoadedModel, expected: dict[int, tuple[Any, ...]], mode: Mode, length: int
) -> None:
    """With guesses of any length the answers are those without."""
    some = {n: prompt(n, length) for n in range(length, length + 21, 7)}

    said, speculation = await answers(model, draft, mode, some)

    assert said == {n: expected[n] for n in some}
    assert 0 < max(each for each, count in enumerate(speculation.counts.lengths) if count) <= length


@pytest.mark.parametrize("count", [1, 2, 5, 13, 32])
@pytest.mark.parametrize("mode", ["draft", "ngram", "both"])
async def test_every_company(
    model: LoadedModel, draft: LoadedModel, expected: dict[int, tuple[Any, ...]], mode: Mode, count: int
) -> None:
    """In a batch of any size, whose sequences are guessed for as far as each may be, the answers are those alone."""
    some = {n: prompt(n, n % (FARTHEST + 1)) for n in range(32 - count, 32)}

    said, speculation = await answers(model, draft, mode, some)

    assert said == {n: expected[n] for n in some}
    if count == 32:
        judged = speculation.counts.drafters.values()
        assert 0 < sum(each.accepted_tokens for each in judged) < sum(each.draft_tokens for each in judged)


async def test_a_draft_with_a_shorter_context(
    model: LoadedModel, tmp_path: Path, expected: dict[int, tuple[Any, ...]]
) -> None:
    """It guesses to its end, and the answers go on without it."""
    short = load_model(models.save(tmp_path, max_position_embeddings=64), device="cpu", context=64)
    some = {n: prompt(n) for n in (13, 28, 31)}  # 29, 59 and 65 tokens long

    said, speculation = await answers(model, short, "draft", some)

    assert said == {n: expected[n] for n in some}
    assert speculation._drafter is not None
    assert speculation.counts.drafters["draft"].accepted_tokens


def test_a_draft_with_the_same_tokens_under_other_ids(model: LoadedModel, tmp_path: Path) -> None:
    """As many tokens are not the same tokens: where two of them are exchanged, both models are named, and a token."""
    folder = models.save(tmp_path)
    text = (folder / "tokenizer.json").read_text()
    for old, new in (("<|end|>", "<|swap|>"), ("<|pad|>", "<|end|>"), ("<|swap|>", "<|pad|>")):
        text = text.replace(old, new)
    (folder / "tokenizer.json").write_text(text)
    draft = load_model(folder, device="cpu")
    assert len(draft.tokenizer) == len(model.tokenizer)

    with pytest.raises(ModelLoadError, match=r"<\|end\|>") as refusal:
        Speculation(model, draft)

    assert model.name in str(refusal.value)
    assert draft.name in str(refusal.value)
