"""Scoring: the same likelihoods as from the library's whole forward, in whatever company."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pipeline.errors import EmptyTurn, InvalidParameter, PromptTooLong
from stages.llm.engine import TorchEngine
from stages.llm.models.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.scoring import rank, score
from tests.stages.llm.running import answer, make_prompt, some_ids

SMALL_STEPS: dict[str, Any] = {"target_s": 1e-9, "least": 5, "most": 7}
PREFIX = some_ids(90, 1)
CANDIDATES = [some_ids(length, 10 + length) for length in (1, 2, 3, 9, 30, 70)]
CLOSE = 1e-4


def logprobs(model: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    """The library's own: log-probabilities after each of `ids`, [ids, vocabulary]."""
    own = type(model.network)(model.network.config.__class__(**model.network.config.to_dict()))
    own.load_state_dict(model.network.state_dict())
    own.set_attn_implementation("eager")
    with torch.inference_mode():
        logits: torch.Tensor = own.eval()(torch.tensor([list(ids)])).logits[0]
    return logits.double().log_softmax(-1)


def expected(model: LoadedModel, candidate: Sequence[int]) -> list[float]:
    """The likelihood of each token of `candidate` after the prefix."""
    rows = logprobs(model, [*PREFIX, *candidate])[len(PREFIX) - 1 : -1]
    return [float(row[token]) for row, token in zip(rows, candidate, strict=True)]


async def test_the_likelihoods_are_those_of_the_library(model: LoadedModel) -> None:
    """Of short and long continuations, in one batch with answers, in small steps."""
    async with asyncio.timeout(30), TorchEngine(model, pace=Pace(**SMALL_STEPS)) as engine:
        prompts = [make_prompt(some_ids(20, n), max_output_tokens=30) for n in range(3)]
        answers = asyncio.gather(*(answer(engine, prompt) for prompt in prompts))
        scores = await score(engine, PREFIX, CANDIDATES)
        await answers
        engine._batch.pool.check()
    for candidate, found in zip(CANDIDATES, scores, strict=True):
        assert found.logprobs == pytest.approx(expected(model, candidate), abs=CLOSE)
        assert found.total == pytest.approx(sum(found.logprobs))


async def test_the_same_bits_alone_and_in_company(model: LoadedModel) -> None:
    """Neither other continuations, nor what is cached, nor a lack of memory change a bit."""
    async with asyncio.timeout(30), TorchEngine(model) as engine:
        together = await score(engine, PREFIX, CANDIDATES)
        again = await score(engine, PREFIX, CANDIDATES)
    alone = []
    for candidate in CANDIDATES:
        async with asyncio.timeout(30), TorchEngine(model, pace=Pace(**SMALL_STEPS)) as engine:
            alone += await score(engine, PREFIX, [candidate])
    room = 4 * model.kv.block_bytes
    async with asyncio.timeout(30), TorchEngine(model, kv_bytes=room, prefix_bytes=0) as engine:
        scarce = await score(engine, PREFIX, CANDIDATES)
        engine._batch.pool.check()
    assert together == again == alone == scarce


async def test_the_prefix_is_computed_once(model: LoadedModel) -> None:
    """All continuations but the first find it; and so does an answer."""
    async with asyncio.timeout(30), TorchEngine(model) as engine:
        length = engine._rates.length
        await score(engine, PREFIX, CANDIDATES)
        counts = engine.state.counts
        computed = counts.prefix_cache_queries - counts.prefix_cache_hits
        assert counts.prompt_tokens == len(CANDIDATES) * len(PREFIX)
        assert (counts.generation_tokens, engine._rates.length) == (0, length)
        _, _, cached = await answer(engine, make_prompt(PREFIX, max_output_tokens=1))
    assert cached == len(PREFIX) - 1
    assert computed < 2 * len(PREFIX) + sum(map(len, CANDIDATES))


async def test_the_likeliest_tokens(model: LoadedModel) -> None:
    """In their order, of the whole vocabulary; more than there are is all of them."""
    row = logprobs(model, PREFIX)[-1]
    best = row.topk(5)
    async with asyncio.timeout(30), TorchEngine(model) as engine:
        found = await rank(engine, PREFIX, 5)
        everything = await rank(engine, PREFIX, 10**6)
    assert [token for token, _ in found] == best.indices.tolist()
    assert [logprob for _, logprob in found] == pytest.approx(best.values.tolist(), abs=CLOSE)
    assert len(everything) == len(row)
    assert sum(torch.tensor([logprob for _, logprob in everything]).exp()) == pytest.approx(1, abs=CLOSE)


async def test_what_cannot_be_scored_is_refused(model: LoadedModel) -> None:
    """No prefix, no candidate, unknown ids, too long; the engine goes on."""
    async with asyncio.timeout(30), TorchEngine(model) as engine:
        for prefix, candidate, error in (
            ([], [1], EmptyTurn),
            ([1], [], EmptyTurn),
            ([1], [model.tokens], InvalidParameter),
            ([1] * model.context, [1], PromptTooLong),
        ):
            with pytest.raises(error):
                await score(engine, prefix, [candidate])
        with pytest.raises(EmptyTurn):
            await rank(engine, [], 1)
        with pytest.raises(InvalidParameter):
            await rank(engine, [1], 0)
        assert await score(engine, PREFIX, []) == []
        assert await rank(engine, [1], 1)


async def test_who_gives_up_leaves_nothing(model: LoadedModel) -> None:
    """A cancelled scoring frees its place and its memory."""
    async with asyncio.timeout(30), TorchEngine(model, pace=Pace(**SMALL_STEPS)) as engine:
        scoring = asyncio.create_task(score(engine, PREFIX, CANDIDATES))
        await asyncio.sleep(0)
        scoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scoring
        await answer(engine, make_prompt([1, 2], max_output_tokens=2))
        assert (engine.state.num_requests_running, engine.state.num_requests_waiting) == (0, 0)
        engine._batch.pool.check()


async def test_what_fails_at_its_end_takes_nothing_from_others(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A judgement that breaks after the model has computed for all: the answers beside it have each of their tokens."""
    prompt = make_prompt(some_ids(20, 3), max_output_tokens=60)
    async with asyncio.timeout(30), TorchEngine(model) as engine:
        alone = await answer(engine, prompt)

        def broken(*_: object) -> None:
            raise ArithmeticError

        monkeypatch.setattr("stages.llm.scoring.likelihoods", broken)
        answering = asyncio.create_task(answer(engine, prompt))
        failed = await asyncio.gather(*(score(engine, PREFIX, [[n]]) for n in range(1, 9)), return_exceptions=True)
        assert (await answering)[0] == alone[0]
        engine._batch.pool.check()
    assert all(isinstance(one, ArithmeticError) for one in failed)
    assert "could not be taken" in caplog.text
