"""Who is let wait and who is told to come back: by what the model is known to do, and fair between tenants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from pipeline.errors import Overloaded
from pipeline.messages import Prompt
from pipeline.request import Request, begin
from stages.llm.batch import Batch
from stages.llm.cache.blocks import BlockPool
from stages.llm.costs import Costs
from stages.llm.engine import TorchEngine
from stages.llm.models.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.rates import LENGTH, Rates
from stages.llm.scheduler import Outcome
from stages.llm.sequence import Sequence
from tests.stages.llm.running import DEADLINE_S, answer, make_prompt, some_ids
from tests.stages.models import END

SLOW = Costs.line(base=0.5, sequence=0.0, token=0.001)
"""Half a second a step, as far as the engine is told."""

STEP_S = 0.1
"""What a step of an occupied engine takes at least: it must not have said much before the others come."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines believe that their model is slow."""
    monkeypatch.setattr("stages.llm.engine.measure", lambda *_: SLOW)
    monkeypatch.setattr(Rates, "saw", lambda *_, **__: None)


def long_prompt(number: int, *, tokens: int = 400, emitted: tuple[int, ...] = ()) -> Prompt:
    """A prompt of a session of its own, whose answer takes a while."""
    return make_prompt(some_ids(20, number), session=f"s{number}", max_output_tokens=tokens, emitted=emitted)


async def asked(engine: TorchEngine, prompt: Prompt, tenant: str = "default", within_s: float = 600.0) -> list[int]:
    """The answer to `prompt` as a turn of `tenant`; its own task has its own request."""
    begin(Request(tenant, time.time() + within_s))
    ids, _, _ = await answer(engine, prompt)
    return ids


@asynccontextmanager
async def occupied(engine: TorchEngine) -> AsyncGenerator[None, None]:
    """An engine of one place meanwhile, in which a long answer is being made, for seconds."""
    step = engine._batch.step

    def slowly() -> list[Outcome]:
        time.sleep(STEP_S)
        return step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._batch, "step", slowly)
        never = ((END, -100.0),)
        prompt = make_prompt(some_ids(20, 99), max_output_tokens=490, emitted=[7], speculation=0, logit_bias=never)
        async with asyncio.timeout(DEADLINE_S), aclosing(engine.generate(prompt)) as answer:
            await anext(answer)
            yield


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something of the model's thread, which has no events, is so."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - the thread's own state
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("slow")
async def test_who_would_wait_too_long_is_refused_at_once(model: LoadedModel) -> None:
    """A turn that would begin after the longest wait is told when to come back; one with more patience is answered."""
    async with TorchEngine(model, most=1, max_wait_s=10.0) as engine, occupied(engine):
        with pytest.raises(Overloaded) as refusal:
            await asked(engine, long_prompt(1))
    assert 10 < refusal.value.retry_after < LENGTH
    assert engine.state.counts.refused == 1

    async with TorchEngine(model, most=1, max_wait_s=100.0) as engine:
        async with occupied(engine):
            waiting = asyncio.create_task(asked(engine, long_prompt(1, tokens=3)))
            await until(lambda: engine.state.num_requests_waiting == 1)
        assert len(await waiting) == 3


@pytest.mark.usefixtures("slow")
async def test_who_would_begin_after_the_deadline_is_refused_at_once(model: LoadedModel) -> None:
    """The deadline of the request counts like the longest wait, whichever is sooner."""
    async with TorchEngine(model, most=1, max_wait_s=100.0) as engine, occupied(engine):
        with pytest.raises(Overloaded):
            await asked(engine, long_prompt(1), within_s=15.0)


@pytest.mark.usefixtures("slow")
async def test_an_idle_model_refuses_nobody(model: LoadedModel) -> None:
    """However long its own prompt takes, a turn that need not wait for others is answered, again and again."""
    async with TorchEngine(model, max_wait_s=0.01) as engine:
        for number in range(3):
            await until(lambda: engine._batch.idle)
            assert len(await asked(engine, long_prompt(number, tokens=2), within_s=5.0)) == 2
    assert engine.state.counts.refused == 0


@pytest.mark.usefixtures("slow")
async def test_what_is_cached_costs_nothing(model: LoadedModel) -> None:
    """A turn that waits is told the time of those before it by what they really have to compute."""
    ids = some_ids(300, 1)
    async with TorchEngine(model, most=1, max_wait_s=100.0) as engine:
        await asked(engine, make_prompt(ids, session="long", max_output_tokens=1))
        engine._rates.prompt_s = 10.0
        async with occupied(engine):
            cached = asyncio.create_task(asked(engine, make_prompt([*ids, 5], session="long", max_output_tokens=1)))
            await until(lambda: engine.state.num_requests_waiting == 1)
            assert [waiting.cost < 100 for waiting in engine._batch.scheduler.waiting] == [True]
        assert len(await cached) == 1


@pytest.mark.usefixtures("slow")
async def test_what_another_worker_had_begun_is_never_refused(model: LoadedModel) -> None:
    """An answer in the making goes on after a takeover, however much there is to do."""
    async with TorchEngine(model, most=1, queue=0, max_wait_s=0.001) as engine:
        async with occupied(engine):
            going_on = asyncio.create_task(asked(engine, long_prompt(1, tokens=3, emitted=(7,)), within_s=0.1))
            await until(lambda: engine.state.num_requests_waiting == 1)
        assert len(await going_on) == 2


async def test_who_has_waited_too_long_is_refused_then(model: LoadedModel) -> None:
    """Where the model is slower than was thought, a turn is refused when it is too late to begin, and not later."""
    async with TorchEngine(model, most=1, max_wait_s=0.1) as engine, occupied(engine):
        engine._rates.output_s = engine._rates.prompt_s = 1e-9
        with pytest.raises(Overloaded) as refusal:
            await asked(engine, long_prompt(1))
    assert refusal.value.retry_after >= 0.5


def test_who_has_waited_in_vain_is_told_to_come_back_no_sooner(model: LoadedModel) -> None:
    """Those refused together shall be away at least as long again, each for a time of its own."""
    chances = iter([0.0, 0.5, 1.0])
    batch = Batch(
        model,
        BlockPool(16, model.kv),
        most=1,
        queue=3,
        pace=Pace(),
        rates=Rates(1),
        chance=lambda: next(chances),
    )
    batch.add(Sequence(0, long_prompt(0), model.vocabulary, context=model.context))
    batch.step()
    for number in (1, 2, 3):
        sequence = Sequence(number, long_prompt(number), model.vocabulary, context=model.context)
        assert batch.add(sequence) == []
        sequence.since -= 10.0
        sequence.latest = time.monotonic()
    batch._rates.output_s = batch._rates.prompt_s = 1e-9

    refusals = [outcome for sequence, outcome in batch.step() if sequence.number]
    assert all(isinstance(refusal, Overloaded) for refusal in refusals)
    told = [refusal.retry_after for refusal in refusals if isinstance(refusal, Overloaded)]
    assert told == pytest.approx([10.0, 12.5, 15.0], rel=0.1)
    assert told[0] >= 10.0


async def test_a_flooding_tenant_does_not_hold_up_another(model: LoadedModel) -> None:
    """Of many waiting turns of one tenant only the next one goes before the first of another."""
    ended: list[str] = []

    async def ask(tenant: str, number: int) -> None:
        await asked(engine, long_prompt(number, tokens=5), tenant)
        ended.append(tenant)

    async with TorchEngine(model, most=1, max_wait_s=60.0) as engine:
        async with occupied(engine):
            flood = [asyncio.create_task(ask("flood", n)) for n in range(30)]
            await until(lambda: engine.state.num_requests_waiting == 30)
            quiet = asyncio.create_task(ask("quiet", 50))
            await until(lambda: engine.state.num_requests_waiting == 31)
        await asyncio.gather(quiet, *flood)

    assert ended.index("quiet") <= 2


async def test_places_are_kept_for_tenants_that_have_none(model: LoadedModel) -> None:
    """A tenant that floods does not get the last places, where there are others: one of those begins at once."""
    async with TorchEngine(model, most=8, max_wait_s=60.0) as engine:
        await asked(engine, long_prompt(50, tokens=1), "quiet")
        flood = [asyncio.create_task(asked(engine, long_prompt(n, tokens=400), "flood")) for n in range(20)]
        await until(lambda: engine.state.num_requests_waiting == 13)
        quiet = await asked(engine, long_prompt(51, tokens=2), "quiet")
        assert engine.state.num_requests_waiting == 13
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)

    assert len(quiet) == 2


async def test_a_lone_tenant_has_all_places(model: LoadedModel) -> None:
    """Nothing is kept where there is nobody else."""
    async with TorchEngine(model, most=8, max_wait_s=60.0) as engine:
        flood = [asyncio.create_task(asked(engine, long_prompt(n, tokens=300), "flood")) for n in range(9)]
        await until(lambda: engine.state.num_requests_running == 8)
        assert engine.state.num_requests_waiting == 1
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_a_full_queue_takes_a_quiet_tenant_in(model: LoadedModel) -> None:
    """Where no more may wait, the turn of who has few waiting takes the place of one of who has many."""
    async with TorchEngine(model, most=1, queue=5, max_wait_s=60.0) as engine:
        async with occupied(engine):
            flood = [asyncio.create_task(asked(engine, long_prompt(n, tokens=3), "flood")) for n in range(5)]
            await until(lambda: engine.state.num_requests_waiting == 5)
            quiet = asyncio.create_task(asked(engine, long_prompt(50, tokens=3), "quiet"))
            results = await asyncio.gather(flood[-1], return_exceptions=True)
        assert isinstance(results[0], Overloaded)
        assert len(await quiet) == 3
        await asyncio.gather(*flood[:-1])


async def test_tokens_for_nobody_are_counted(model: LoadedModel) -> None:
    """What was chosen for an answer that is given up stands in the counts, and its place is free."""
    async with TorchEngine(model) as engine:
        async with occupied(engine):
            pass
        await until(lambda: engine.state.num_requests_running == 0 and engine._batch.idle)
        assert 0 < engine.state.counts.cancelled_tokens <= engine.state.counts.generation_tokens
        assert engine.state.counts.prompt_tokens == 21


def test_rates_are_learned_from_a_busy_model() -> None:
    """Whatever was measured at the start, the steps of a busy model tell in the end, prompts and answers apart."""
    rates = Rates(4)
    rates.measured(Costs.line(base=1.0, sequence=0.0, token=1.0))
    for _ in range(300):
        rates.saw(0, 4, 0.02)
        rates.saw(100, 2, 0.11)
        rates.ended(10)

    assert rates.output_s == pytest.approx(0.005, rel=0.01)
    assert rates.prompt_s == pytest.approx(0.001, rel=0.01)
    assert rates.length == pytest.approx(10, rel=0.01)


def test_a_step_in_which_the_machine_slept_says_little() -> None:
    """One that took a minute makes no prompt look like one of minutes."""
    rates = Rates(8)
    rates.measured(Costs.line(base=0.01, sequence=0.0, token=0.0))
    rates.saw(100, 0, 60.0)
    rates.saw(0, 8, 60.0)

    assert rates.prompt_s < 2e-4
    assert rates.output_s < 2e-3


def test_a_prompt_is_never_thought_to_be_free() -> None:
    """Where noise hides what a token costs, at the start or later, it counts as its share of the largest step."""
    rates = Rates(8)
    rates.measured(Costs.line(base=0.01, sequence=0.0024, token=0.0))
    assert rates.prompt_s == pytest.approx(0.0124 / 512)

    rates.output_s = 9.0
    for _ in range(300):
        rates.saw(10, 1, 0.01, busy=False)
    assert rates.prompt_s == pytest.approx(0.01 / 512)


def test_an_idle_model_tells_only_that_it_is_faster() -> None:
    """Alone a token costs more than in company; where it still costs less than was thought, that was too much."""
    rates = Rates(8)
    rates.measured(Costs.line(base=0.08, sequence=0.0, token=0.001))
    for _ in range(300):
        rates.saw(0, 1, 0.08, busy=False)
        rates.saw(10, 0, 0.08, busy=False)
    assert rates.output_s == pytest.approx(0.011)
    assert rates.prompt_s == pytest.approx(0.001)

    rates.prompt_s = rates.output_s = 9.0
    for _ in range(300):
        rates.saw(0, 1, 0.08, busy=False)
        rates.saw(10, 0, 0.08, busy=False)
    assert rates.output_s < 0.09
    assert rates.prompt_s < 0.009
