"""What is asked of an answer's tokens holds in the engine: exactly drawn, the same in any company and at any guess."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InvalidParameter, PenstockError
from pipeline.messages import FinishReason, Grammar, Likelihood, Prompt, Sampling
from stages.llm import batch as batch_module
from stages.llm import engine as engine_module
from stages.llm.engine import TorchEngine
from stages.llm.models.forward import Work, forward
from stages.llm.models.model import LoadedModel, load_model
from stages.llm.sequence import Sequence as Answering
from tests.stages import models
from tests.stages.llm.choosing.test_penalties import plainly
from tests.stages.llm.guessing.test_drafter import fixed
from tests.stages.llm.running import DEADLINE_S, answer, make_prompt, placed, some_ids

DRAWS = 600
ASKED = 200
PROMPT = some_ids(20, 8)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The model with a little noise on its weights: right now and then."""
    folder = models.save(tmp_path_factory.mktemp("draft"))
    drawn = torch.Generator().manual_seed(2)
    weights = load_file(folder / "model.safetensors")
    noisy = {name: weight + 0.02 * torch.randn(weight.shape, generator=drawn) for name, weight in weights.items()}
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return load_model(folder, device="cpu")


def logits_after(model: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    """The model's logits for the token after `ids`."""
    (sequence,) = placed(model, [make_prompt(ids, max_output_tokens=1)])
    return forward(model, [Work(sequence, len(ids))])[0]


def exactly(logits: torch.Tensor, ask: Sampling, answer: list[int]) -> torch.Tensor:
    """The distribution of the next token after `answer`, from what the parameters mean."""
    probabilities = (plainly(logits, ask, PROMPT, answer).double() / ask.temperature).softmax(-1)
    likeliest = probabilities.max()
    order = probabilities.argsort(descending=True)[: ask.top_k or None]
    probabilities = torch.zeros_like(probabilities).index_copy(0, order, probabilities[order])
    before = probabilities[order].cumsum(0) - probabilities[order]
    probabilities[order[before / probabilities.sum() >= ask.top_p]] = 0.0
    probabilities[probabilities < ask.min_p * likeliest] = 0.0
    return probabilities / probabilities.sum()


def cells(model: LoadedModel, ask: Sampling) -> dict[tuple[int, ...], float]:
    """How likely an answer begins with the likeliest tokens, by pairs; -1 stands for all others."""
    first = exactly(logits_after(model, PROMPT), ask, [])
    found: dict[tuple[int, ...], float] = {}
    for token in first.topk(3).indices.tolist():
        second = exactly(logits_after(model, [*PROMPT, token]), ask, [token])
        best = second.topk(3).indices.tolist()
        found |= {(token, other): float(first[token] * second[other]) for other in best}
        found[token, -1] = float(first[token] * (1 - second[best].sum()))
    return found


def critical(freedom: int, z: float = 3.72) -> float:
    """What chi-square exceeds once in 10,000 times (Wilson and Hilferty, 1931)."""
    return float(freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask",
    [
        {"temperature": 1.0},
        {"temperature": 0.6, "top_p": 0.9},
        {"temperature": 1.7, "top_k": 5},
        {
            "temperature": 1.5,
            "top_k": 8,
            "top_p": 0.8,
            "min_p": 0.05,
            "repetition_penalty": 1.2,
            "frequency_penalty": 1.0,
        },
    ],
    ids=["plain", "top-p", "top-k", "all"],
)
async def test_answers_follow_the_exact_distribution(
    model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch, ask: dict[str, Any]
) -> None:
    """Pairs of tokens, drawn with guessing on, pass a chi-square test (1 in 10,000; fixed seeds)."""
    monkeypatch.setattr(engine_module, "Speculation", fixed(2))
    drawn = Counter[tuple[int, ...]]()
    async with TorchEngine(model, draft=draft) as engine:
        for start in range(0, DRAWS, ASKED):
            prompts = [make_prompt(PROMPT, seed=start + n, max_output_tokens=3, **ask) for n in range(ASKED)]
            said_all = await asyncio.gather(*(answer(engine, p) for p in prompts))
            drawn.update((*ids, models.END, models.END)[:2] for ids, _, _ in said_all)
        assert engine._speculation is not None
        right = engine._speculation.counts.drafters["draft"].accepted_tokens

    expected = {cell: share for cell, share in cells(model, Sampling(**ask)).items() if share * DRAWS >= 5}
    rest = 1 - sum(expected.values())
    said = {cell: _count(drawn, cell, expected) for cell in expected}
    statistic = sum((said[cell] - share * DRAWS) ** 2 / (share * DRAWS) for cell, share in expected.items())
    if rest * DRAWS >= 5:
        statistic += (DRAWS - sum(said.values()) - rest * DRAWS) ** 2 / (rest * DRAWS)
    assert len(expected) > 3
    assert DRAWS / 10 < right < DRAWS
    assert statistic < critical(len(expected))


def _count(drawn: Counter[tuple[int, ...]], cell: tuple[int, ...], cells: Any) -> int:
    if cell[1] >= 0:
        return drawn[cell]
    listed = {other[1] for other in cells if other[0] == cell[0]}
    return sum(count for pair, count in drawn.items() if pair[0] == cell[0] and pair[1] not in listed)


ASKS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.01, "frequency_penalty": 1.0, "logit_bias": ((7, 50.0), (8, 50.0), (9, 50.0))},
    {"repetition_penalty": 1.3, "temperature": 1.1, "top_k": 30, "min_p": 0.02},
    {"frequency_penalty": 2.0, "logit_bias": ((7, 5.0), (9, -100.0)), "temperature": 0.9, "top_p": 0.9},
    {"grammar": Grammar("regex", "[a-z ]{5,40}"), "temperature": 1.0, "presence_penalty": 1.0},
]


Whole = tuple[list[int], FinishReason | None, list[Likelihood]]


async def whole(engine: TorchEngine, prompt: Prompt) -> Whole:
    """The whole answer with its likelihoods."""
    ids: list[int] = []
    likelihoods: list[Likelihood] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(engine.generate(prompt)) as runs:
        async for run in runs:
            ids += run.ids
            likelihoods += run.likelihoods
            if run.finish is not None:
                return ids, run.finish, likelihoods
    return ids, None, likelihoods


def asked(n: int, ask: dict[str, Any], **more: Any) -> Prompt:
    """The prompt of that number."""
    ask = {"max_output_tokens": 24, "seed": n, "logprobs": 2, **ask, **more}
    return make_prompt(some_ids(6 + 9 * n, n), session=f"s{n}", **ask)


@pytest.mark.parametrize("ask", ASKS, ids=["greedy", "drawn", "biased", "grammar"])
async def test_same_seed_same_answer(
    model: LoadedModel, draft: LoadedModel, monkeypatch: pytest.MonkeyPatch, ask: dict[str, Any]
) -> None:
    """Guessed ahead or not, alone or among others who ask otherwise: the same tokens and likelihoods, bit for bit."""
    async with TorchEngine(model, speculation="off") as engine:
        alone = [await whole(engine, asked(n, ask)) for n in range(2)]
    others = [asked(2 + n, other) for n, other in enumerate(ASKS)]

    monkeypatch.setattr(engine_module, "Speculation", fixed(3))
    async with TorchEngine(model, draft=draft) as engine:
        prompts = [*(asked(n, ask) for n in range(2)), *others]
        crowd = await asyncio.gather(*(whole(engine, prompt) for prompt in prompts))

    assert crowd[:2] == alone
    assert all(len(ids) == len(likelihoods) for ids, _, likelihoods in crowd)


@pytest.mark.parametrize("ask", ASKS, ids=["greedy", "drawn", "biased", "grammar"])
@pytest.mark.parametrize("at", [4])
async def test_another_goes_on_alike(model: LoadedModel, ask: dict[str, Any], at: int) -> None:
    """What a former owner emitted counts for penalties and grammar; its likelihoods are neither lost nor said again."""
    async with TorchEngine(model) as engine:
        ids, finish, likelihoods = await whole(engine, asked(1, ask))
        prompt = asked(1, ask)
        rest = await whole(engine, make_prompt(prompt.ids, session="b", emitted=ids[:at], **_asdict(prompt.sampling)))

    assert rest == (ids[at:], finish, likelihoods[at:])


def _asdict(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in sampling.__struct_fields__}


async def test_likelihoods_are_the_models_own(model: LoadedModel) -> None:
    """Of the logits as they are: temperature, penalties and biases change the choice and not what is told of it."""
    ask: dict[str, Any] = {
        "temperature": 1.5,
        "frequency_penalty": 2.0,
        "logit_bias": ((7, 3.0),),
        "logprobs": 3,
        "seed": 4,
    }
    async with TorchEngine(model) as engine:
        ids, _, likelihoods = await whole(engine, make_prompt(PROMPT, max_output_tokens=6, **ask))

    for n, (token, one) in enumerate(zip(ids, likelihoods, strict=True)):
        logprobs = logits_after(model, [*PROMPT, *ids[:n]]).double().log_softmax(-1)
        assert one.id == token
        assert one.logprob == logprobs[token].item()
        assert [other.id for other in one.top] == logprobs.topk(3).indices.tolist()


async def test_a_stop_id_ends_the_answer_unsaid(model: LoadedModel) -> None:
    """The answer ends before the first token of `stop_ids`, which is not given out, also after a takeover."""
    async with TorchEngine(model) as engine:
        ids, _, _ = await answer(engine, make_prompt(PROMPT, max_output_tokens=20))
        end = next(n for n in range(4, 20) if ids[n] not in ids[:n])
        ask: dict[str, Any] = {"max_output_tokens": 20, "stop_ids": (ids[end], 511)}

        stopped = await answer(engine, make_prompt(PROMPT, **ask))
        resumed = await answer(engine, make_prompt(PROMPT, emitted=ids[:end], **ask))
        over = await answer(engine, make_prompt(PROMPT, emitted=ids[: end + 1], **ask))

    assert stopped[:2] == (ids[:end], "stop")
    assert resumed[:2] == ([], "stop")
    assert over[:2] == ([], "stop")


@pytest.mark.parametrize("ask", [{"stop_ids": (512,)}, {"stop_ids": (-1,)}, {"logit_bias": ((512, 1.0),)}], ids=str)
async def test_ids_that_the_model_does_not_have_are_refused(model: LoadedModel, ask: dict[str, Any]) -> None:
    """A token id beyond the vocabulary is told by its parameter and its number."""
    async with TorchEngine(model) as engine:
        with pytest.raises(InvalidParameter, match=f"{next(iter(ask))}.*has no token") as told:
            await answer(engine, make_prompt(PROMPT, **ask))

    assert told.value.param == next(iter(ask))


@pytest.mark.parametrize(
    "ask",
    [
        {"repetition_penalty": 1.5, "presence_penalty": 1.0},
        {"temperature": 1.0, "top_p": 0.9, "frequency_penalty": 1.0},
        {"temperature": 1.0, "top_k": 5, "min_p": 0.1, "logit_bias": ((7, 1.0),)},
        {"grammar": Grammar("regex", "[a-z]+")},
        {"logprobs": 3},
    ],
    ids=["penalties", "top-p", "top-k and min-p", "grammar", "logprobs"],
)
async def test_logits_that_are_no_numbers_fail_alone(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, ask: dict[str, Any]
) -> None:
    """Whatever is asked, not-a-number is found out, and the answer beside it goes on as if nothing were."""

    def broken(model: LoadedModel, works: Sequence[Work[Answering]]) -> torch.Tensor:
        logits = forward(model, works).clone()
        row = 0
        for work in works:
            if work.last:
                if work.sequence.scope == "bad" and work.sequence.output >= 2:
                    logits[row : row + work.sequence.logits] = float("nan")
                row += work.sequence.logits
        return logits

    good = make_prompt(PROMPT, session="good", max_output_tokens=12)
    async with TorchEngine(model) as engine:
        expected = await answer(engine, good)
        monkeypatch.setattr(batch_module, "forward", broken)
        bad = answer(engine, make_prompt(PROMPT[1:], session="bad", max_output_tokens=12, seed=2, **ask))
        told = await asyncio.gather(answer(engine, good), bad, return_exceptions=True)

    assert isinstance(told[1], PenstockError)
    assert "no finite logits" in str(told[1])
    assert not isinstance(told[0], BaseException)
    assert told[0][:2] == expected[:2]
