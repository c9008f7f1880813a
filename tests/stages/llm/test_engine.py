"""The torch engine on tiny random models: it says what `generate` says, whatever goes on around."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from pipeline.errors import EngineUnavailable, InvalidParameter, Overloaded, PenstockError
from pipeline.messages import Prompt, Utterance
from pipeline.request import Request
from pipeline.request import begin as begin_request
from stages.llm.batch import Batch
from stages.llm.engine import TorchEngine
from stages.llm.models import forward as forward_module
from stages.llm.models.model import LoadedModel, load_model
from stages.llm.pace import Pace
from stages.llm.scheduler import Outcome
from stages.preprocess.text.template import ChatTemplate
from tests.stages.conftest import DEMO
from tests.stages.llm.running import DEADLINE_S, answer, begin, make_prompt, reference, some_ids
from tests.stages.models import MAKERS

SMALL_STEPS: dict[str, Any] = {"target_s": 1e-9, "least": 5, "most": 7}


@pytest.fixture
async def engine(model: LoadedModel) -> AsyncGenerator[TorchEngine, None]:
    """An engine with a tiny random Llama."""
    async with TorchEngine(model) as engine:
        yield engine


@pytest.mark.parametrize("kind", MAKERS)
async def test_says_what_generate_says(kind: str, load: Callable[[str], LoadedModel]) -> None:
    """Greedy answers are those of `generate`, for each kind of model, in one batch, in small steps."""
    model = load(kind)
    prompts = [make_prompt(some_ids(3 + 11 * n, n), session=f"s{n}", max_output_tokens=20) for n in range(6)]

    async with TorchEngine(model, pace=Pace(**SMALL_STEPS)) as engine:
        answers = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

    assert [(ids, finish) for ids, finish, _ in answers] == [reference(model, prompt) for prompt in prompts]


@pytest.mark.parametrize("most", [1, 2, 32])
async def test_cancelled_neighbours_change_nothing(model: LoadedModel, most: int) -> None:
    """Answers stay the same while others come, and are given up at any moment."""
    prompts = [make_prompt(some_ids(40, n), session=f"s{n}", max_output_tokens=24) for n in range(8)]
    doomed = [make_prompt(some_ids(30 + n, 100 + n), session=f"d{n}", max_output_tokens=50) for n in range(8)]

    async with TorchEngine(model, most=most, pace=Pace(**SMALL_STEPS)) as engine:
        work = [answer(engine, prompt) for prompt in prompts]
        noise = [begin(engine, prompt, n) for n, prompt in enumerate(doomed)]
        answers, _ = await asyncio.gather(asyncio.gather(*work), asyncio.gather(*noise))

    assert [(ids, finish) for ids, finish, _ in answers] == [reference(model, prompt) for prompt in prompts]


async def test_next_turn_computes_only_what_is_new(engine: TorchEngine, model: LoadedModel) -> None:
    """A prompt that begins as the session's last turn did finds it computed, and the answer is the same."""
    first = make_prompt(some_ids(50, 1), max_output_tokens=10)
    said, _, cold = await answer(engine, first)
    second = make_prompt([*first.ids, *said, *some_ids(9, 2)], max_output_tokens=10)

    ids, finish, cached = await answer(engine, second)

    assert cold == 0
    assert cached == len(first.ids) + len(said) - 1
    assert (ids, finish) == reference(model, second)


async def test_what_one_tenant_asked_is_not_told_to_another(engine: TorchEngine) -> None:
    """The same prompt in another session finds what is computed; of another tenant, even in that session, nothing."""
    prompt = make_prompt(some_ids(50, 1), session="one", max_output_tokens=4)
    await answer(engine, prompt)

    _, _, shared = await answer(engine, make_prompt(prompt.ids, session="other", max_output_tokens=4))
    begin_request(Request("stranger", math.inf))
    _, _, cached = await answer(engine, prompt)

    assert (shared, cached) == (49, 0)


@pytest.mark.parametrize("at", [0, 1, 7, 19, 20])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
async def test_goes_on_where_another_left_off(engine: TorchEngine, at: int, temperature: float) -> None:
    """Given what a former owner emitted, it says the rest of the same answer."""
    ask: dict[str, Any] = {"max_output_tokens": 20, "temperature": temperature, "seed": 5}
    whole, finish, _ = await answer(engine, make_prompt(some_ids(30, 3), session="a", **ask))
    assert len(whole) == 20

    rest = await answer(engine, make_prompt(some_ids(30, 3), session="b", emitted=whole[:at], **ask))

    assert (rest[0], rest[1]) == (whole[at:], finish)


async def test_same_seed_same_answer_in_any_company(engine: TorchEngine) -> None:
    """A sampled answer depends on its seed, and not on what else is in the batch."""

    def prompt(seed: int, session: str) -> Prompt:
        return make_prompt(
            some_ids(20, 4), session=session, max_output_tokens=15, temperature=1.0, top_p=0.9, seed=seed
        )

    alone = await answer(engine, prompt(7, "alone"))
    crowd = await asyncio.gather(*(answer(engine, prompt(seed, f"s{seed}")) for seed in range(12)))

    assert crowd[7][0] == alone[0]
    assert len({tuple(ids) for ids, _, _ in crowd}) > 6


async def test_stop_string_ends_the_answer(engine: TorchEngine, model: LoadedModel) -> None:
    """The answer ends with the token that completes a stop string, also if the string began before a takeover."""
    whole, _, _ = await answer(engine, make_prompt(some_ids(20, 6), session="a", max_output_tokens=40))
    texts = [model.tokenizer.decode(whole[: n + 1]) for n in range(len(whole))]
    stop = next(text[-3:] for text in texts[12:] if "\N{REPLACEMENT CHARACTER}" not in text[-3:])
    end = next(n for n, text in enumerate(texts) if stop in text) + 1

    ask: dict[str, Any] = {"max_output_tokens": 40, "stop": (stop,)}
    stopped = await answer(engine, make_prompt(some_ids(20, 6), session="b", **ask))
    resumed = await answer(engine, make_prompt(some_ids(20, 6), session="c", emitted=whole[: end - 1], **ask))
    ended = await answer(engine, make_prompt(some_ids(20, 6), session="d", emitted=whole[:end], **ask))

    assert (stopped[0], stopped[1]) == (whole[:end], "stop")
    assert (resumed[0], resumed[1]) == (whole[end - 1 : end], "stop")
    assert (ended[0], ended[1]) == ([], "stop")


async def test_answer_ends_with_the_context(engine: TorchEngine, model: LoadedModel) -> None:
    """Prompt and answer together never have more tokens than the model has positions."""
    ids, finish, _ = await answer(engine, make_prompt(some_ids(model.context - 3, 7), max_output_tokens=50))

    assert (len(ids), finish) == (3, "length")


@pytest.mark.parametrize("ids", [[7, 512], [-1]])
async def test_ids_that_the_model_does_not_have_are_refused(engine: TorchEngine, ids: list[int]) -> None:
    """An id without a row is refused before it can do harm (on a GPU it would end the process)."""
    with pytest.raises(InvalidParameter, match="token ids"):
        await answer(engine, make_prompt(ids))


async def test_given_up_answer_leaves_at_once(engine: TorchEngine) -> None:
    """Nothing is computed for an answer that was given up, and its place is free."""
    await begin(engine, make_prompt(some_ids(20, 8), max_output_tokens=400), tokens=3)

    async with asyncio.timeout(DEADLINE_S):
        while not engine._batch.idle:  # noqa: ASYNC110 - the thread's own state: there is no event to wait for
            await asyncio.sleep(0.001)
    assert not engine._mailboxes


async def test_more_than_the_queue_holds_is_refused(model: LoadedModel) -> None:
    """Beyond the places and the queue, a prompt is refused at once, with a time to come back."""
    async with TorchEngine(model, most=1, queue=1) as engine:
        tasks = [
            asyncio.create_task(answer(engine, make_prompt(some_ids(9, n), session=f"s{n}", max_output_tokens=60)))
            for n in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refusal:
            await answer(engine, make_prompt(some_ids(9, 3)))
        await asyncio.gather(*tasks)

    assert refusal.value.retry_after > 0


async def test_memory_bounds_how_many_run_at_once(model: LoadedModel) -> None:
    """Sequences without room for their keys and values wait, and all are answered."""
    prompts = [make_prompt(some_ids(100, n), session=f"s{n}", max_output_tokens=28) for n in range(5)]

    for sequences in (1, 2):
        async with TorchEngine(model, kv_bytes=sequences * 128 * model.kv.token_bytes, prefix_bytes=0) as engine:
            most = 0
            step = engine._batch.step

            def watching(batch: Batch = engine._batch, step: Callable[[], list[Outcome]] = step) -> list[Outcome]:
                nonlocal most
                outcomes = step()
                most = max(most, len(batch.running))
                return outcomes

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engine._batch, "step", watching)
                answers = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

        assert [(ids, finish) for ids, finish, _ in answers] == [reference(model, prompt) for prompt in prompts]
        assert most == sequences


async def test_trouble_of_one_sequence_stays_its_own(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a step fails because of one sequence, that one fails and the others go on."""
    forward = forward_module.forward

    def failing(model: LoadedModel, works: Any) -> Any:
        if any(work.sequence.scope == "bad" for work in works):
            raise PenstockError("out of luck")
        return forward(model, works)

    monkeypatch.setattr("stages.llm.batch.forward", failing)
    good = answer(engine, make_prompt(some_ids(20, 9), session="good", max_output_tokens=10))
    bad = answer(engine, make_prompt(some_ids(20, 9), session="bad", max_output_tokens=10))
    results = await asyncio.gather(good, bad, return_exceptions=True)

    assert isinstance(results[0], tuple)
    assert len(results[0][0]) == 10
    assert str(results[1]) == "out of luck"


async def test_death_of_the_model_thread_is_told(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the model thread dies, answers fail with an error that another worker can mend, and no new one begins."""
    prompt = make_prompt(some_ids(20, 9), max_output_tokens=400)
    monkeypatch.setattr(engine._batch, "step", lambda: (_ for _ in ()).throw(MemoryError))

    with pytest.raises(EngineUnavailable, match="died"):
        await answer(engine, prompt)
    assert not engine.alive
    await asyncio.wait_for(engine.died(), 5)
    with pytest.raises(EngineUnavailable):
        await answer(engine, prompt)


async def test_closing_ends_the_thread_and_the_answers(model: LoadedModel) -> None:
    """Leaving the engine's context ends its thread; an answer in the making fails and can be made elsewhere."""
    async with TorchEngine(model) as engine:
        task = asyncio.create_task(answer(engine, make_prompt(some_ids(9, 1), max_output_tokens=400)))
        await asyncio.sleep(0.01)

    with pytest.raises(EngineUnavailable):
        await task
    assert not any(thread.name == "penstock-model" for thread in threading.enumerate())


async def test_idle_engine_waits_without_work(engine: TorchEngine) -> None:
    """With nothing to do no step is begun."""
    await answer(engine, make_prompt(some_ids(9, 1), max_output_tokens=2))

    assert engine.busy_since is None
    assert engine._batch.idle


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="the demo model is not built")
async def test_demo_model_says_what_generate_says() -> None:
    """The model we ship answers real questions as with `generate`, many at once."""
    model = load_model(DEMO, device="cpu")
    template = ChatTemplate(model.tokenizer)
    questions = ["hello", "what are your opening hours?", "how do I wash a down jacket?", "thanks!", "where is 48213?"]
    talks = [[Utterance("user", question)] for question in questions]
    prompts = [make_prompt(template.encode(talk), session=talk[0].text, max_output_tokens=40) for talk in talks]

    async with TorchEngine(model) as engine:
        answers = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

    assert [(ids, finish) for ids, finish, _ in answers] == [reference(model, prompt) for prompt in prompts]
