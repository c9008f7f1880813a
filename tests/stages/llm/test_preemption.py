"""Memory that is too small for all: who must wait is told nothing of it, and says what it would have said."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from pipeline.errors import SettingsError, TooFewBlocks
from stages.llm import engine as engine_module
from stages.llm.batch import Batch
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import BLOCK
from stages.llm.engine import TorchEngine
from stages.llm.guessing.speculation import Speculation
from stages.llm.models.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.sequence import Sequence
from stages.llm.stage import Run
from tests.stages.llm.running import DEADLINE_S, answer, begin, make_prompt, reference, some_ids


def batch_of(model: LoadedModel, blocks: int, *, draft: LoadedModel | None = None) -> Batch:
    """A batch with so many blocks."""
    pool = BlockPool(blocks, model.kv, draft=draft.kv if draft else None)
    return Batch(model, pool, most=8, queue=8, pace=Pace(), rates=Rates(8))


def add(batch: Batch, model: LoadedModel, number: int, *, prompt: int = 60, **ask: Any) -> Sequence:
    """A sequence that waits in `batch`."""
    asked = make_prompt(some_ids(prompt, number), session=f"s{number}", **{"max_output_tokens": 100, **ask})
    sequence = Sequence(number, asked, model.vocabulary, context=model.context)
    assert batch.add(sequence) == []
    return sequence


def run(batch: Batch) -> dict[int, list[int]]:
    """Until all have ended: what each said."""
    said: dict[int, list[int]] = {}
    while not batch.idle:
        for sequence, outcome in batch.step():
            assert isinstance(outcome, Run)
            said.setdefault(sequence.number, []).extend(outcome.ids)
    return said


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_who_must_wait_says_the_same(model: LoadedModel, temperature: float) -> None:
    """With memory for all, and with memory that runs out again and again, the answers are the same."""
    said = []
    for blocks in (32, 5):
        batch = batch_of(model, blocks)
        for number in range(3):
            add(batch, model, number, temperature=temperature, seed=number)
        said.append(run(batch))
        assert (batch.counts.preemptions > 0) == (blocks == 5)

    assert said[0] == said[1]
    assert len(said[0]) == 3


def test_the_least_important_and_latest_waits(model: LoadedModel) -> None:
    """Where memory is short, who has the highest priority goes on, of equals the one that came first."""
    batch = batch_of(model, 6)
    first, second = add(batch, model, 1), add(batch, model, 2)
    important = add(batch, model, 3, priority=1)
    waited: list[Sequence] = []
    while first in batch.running or second in batch.running or not waited:
        batch.step()
        waited += [s for s in (first, second, important) if s not in batch.running and s.finish is None]

    assert second in waited
    assert important not in waited
    run(batch)


def test_who_waited_finds_what_it_had_computed(model: LoadedModel) -> None:
    """Recomputing after a wait takes little: what nobody needed in the meantime is still there."""
    batch = batch_of(model, 32)
    sequence = add(batch, model, 1)
    for _ in range(30):
        batch.step()
    computed = sequence.computed
    batch.scheduler._preempt(sequence)
    assert batch.waiting == 1
    batch.step()

    assert sequence.computed == computed + 1
    assert sequence.cached == 0
    run(batch)


def test_who_must_wait_goes_first_and_is_not_refused(model: LoadedModel) -> None:
    """It has begun, so it goes before those that have not, however long it waits."""
    batch = batch_of(model, 32)
    batch.scheduler._most = 1
    sequence, other = add(batch, model, 1), add(batch, model, 2)
    sequence.latest = other.latest = 1e18
    batch.step()
    batch.scheduler._preempt(sequence)
    batch.step()

    assert batch.running == [sequence]
    run(batch)


def test_given_up_while_it_waits(model: LoadedModel) -> None:
    """Who gives up what must wait gets no token more."""
    batch = batch_of(model, 32)
    sequence = add(batch, model, 1)
    for _ in range(9):
        batch.step()
    batch.scheduler._preempt(sequence)
    batch.drop(1)

    assert batch.idle
    assert batch.step() == []
    assert batch.counts.cancelled_tokens == sequence.output > 0


def test_a_prompt_that_will_never_fit_is_refused_alone(model: LoadedModel) -> None:
    """With too few blocks for a prompt it is refused, in words that say what to set; the others go on."""
    batch = batch_of(model, 3)
    add(batch, model, 1)
    long = Sequence(2, make_prompt(some_ids(3 * BLOCK + 1, 2)), model.vocabulary, context=model.context)

    ((_, refusal),) = batch.add(long)

    assert isinstance(refusal, TooFewBlocks)
    assert "model.kv_mb" in str(refusal)
    assert len(run(batch)[1]) > 0


def test_more_memory_than_there_is_cannot_be_had(model: LoadedModel) -> None:
    """The setting that asks for too much is named at the start."""
    with pytest.raises(SettingsError, match=r"model\.kv_mb"):
        TorchEngine(model, prefix_bytes=1 << 60)


def test_an_answer_ends_where_memory_does(model: LoadedModel) -> None:
    """A prompt that just fits is answered, as far as there is memory for one sequence alone."""
    batch = batch_of(model, 3)
    sequence = add(batch, model, 1, prompt=3 * BLOCK - 1, max_output_tokens=200)

    assert len(run(batch)[1]) <= 2
    assert sequence.finish is not None


def test_a_former_owners_end_for_lack_of_memory_is_the_end(model: LoadedModel) -> None:
    """Who takes over an answer that has all the tokens it can have ends it as its former owner would have."""
    batch = batch_of(model, 3)
    undisturbed = add(batch, model, 1, prompt=3 * BLOCK - 6, max_output_tokens=200)
    said = run(batch)[1]
    asked = make_prompt(some_ids(3 * BLOCK - 6, 1), emitted=said, max_output_tokens=200)
    again = Sequence(2, asked, model.vocabulary, context=model.context)

    assert undisturbed.finish == "length"
    assert batch.add(again) == [(again, Run((), "length"))]


@pytest.mark.parametrize(
    "mode", [pytest.param(None, marks=pytest.mark.slow), pytest.param("ngram", marks=pytest.mark.slow), "draft"]
)
async def test_random_giving_up_and_little_memory_change_nothing(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """Greedy answers are those of `generate` while others come and go and memory runs out, with guesses and without."""

    def fixed(model: LoadedModel, draft: LoadedModel | None, **_: Any) -> Speculation:
        return Speculation(model, draft, mode=mode or "off", most=3, always=True)

    monkeypatch.setattr(engine_module, "Speculation", fixed)
    draft = model if mode == "draft" else None
    prompts = [make_prompt(some_ids(60, n), session=f"s{n}", max_output_tokens=90) for n in range(4)]
    doomed = [make_prompt(some_ids(50 + n, 100 + n), session=f"d{n}", max_output_tokens=90) for n in range(4)]
    block = model.kv.block_bytes * (2 if draft else 1)
    async with TorchEngine(model, draft=draft, kv_bytes=5 * block, prefix_bytes=1, max_wait_s=60) as engine:
        work = [answer(engine, prompt) for prompt in prompts]
        noise = [begin(engine, prompt, 9 * n) for n, prompt in enumerate(doomed)]
        answers, _ = await asyncio.gather(asyncio.gather(*work), asyncio.gather(*noise))

        assert engine.state.counts.preemptions > 0
    assert [(ids, finish) for ids, finish, _ in answers] == [reference(model, prompt) for prompt in prompts]


async def test_one_tenants_live_sequences_share(model: LoadedModel) -> None:
    """Who comes while another with the same beginning is being answered finds its full blocks computed."""
    ids = some_ids(3 * BLOCK + 9, 1)
    async with (
        TorchEngine(model) as engine,
        asyncio.timeout(DEADLINE_S),
        aclosing(engine.generate(make_prompt(ids, session="a", max_output_tokens=200))) as running,
    ):
        await anext(running)
        said, finish, cached = await answer(engine, make_prompt([*ids, 7], session="b", max_output_tokens=5))

    assert cached == 3 * BLOCK
    assert (said, finish) == reference(model, make_prompt([*ids, 7], max_output_tokens=5))


def test_a_beginning_that_is_shared_takes_memory_once(model: LoadedModel) -> None:
    """Four answers that begin alike find room where only one would without sharing."""
    batch = batch_of(model, 5 + 4 + 4)
    ids = some_ids(5 * BLOCK + 1, 1)
    for number in range(4):
        prompt = make_prompt([*ids, number + 7], session=f"s{number}", max_output_tokens=30)
        batch.add(Sequence(number, prompt, model.vocabulary, context=model.context))
        batch.step()

    assert len(batch.running) == 4
    run(batch)
