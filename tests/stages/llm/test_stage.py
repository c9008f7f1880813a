"""The LLM stage around an instant engine: what it says, what it refuses, how it goes on after a takeover."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EmptyTurn, InvalidParameter, PenstockError, PromptTooLong
from pipeline.messages import Done, Grammar, Likelihood, Message, Prompt, Sampling, Tokens, Usage
from pipeline.topics import PROMPTS, TOKENS
from stages.llm.instant import InstantEngine
from stages.llm.stage import LLMStage, Run, llm_stage, resume, stopped
from tests.stages.llm.running import make_prompt


async def said(prompt: Prompt, engine: InstantEngine, max_prompt: int = 10) -> list[Message]:
    """All that the stage says to `prompt`."""
    async with aclosing(LLMStage(engine, max_prompt=max_prompt)(prompt)) as stream:
        return [message async for message in stream]


def tokens_of(messages: list[Message]) -> list[int]:
    """The ids in `messages`, which follow each other without a gap."""
    runs = [message for message in messages if isinstance(message, Tokens)]
    for before, after in pairwise(runs):
        assert after.index == before.index + len(before.ids)
    return [token for run in runs for token in run.ids]


async def test_tokens_then_one_done() -> None:
    """An answer is its tokens by number, the first of which carry the stop strings, then one Done with the usage."""
    first, second, done = await said(make_prompt([1, 2, 3], stop=("x",)), InstantEngine(script=[7, 8]))

    assert first == Tokens("s", "t", index=0, ids=(7,), stop=("x",))
    assert second == Tokens("s", "t", index=1, ids=(8,))
    assert done == Done("s", "t", reason="stop", usage=Usage(prompt_tokens=3, output_tokens=2))


@pytest.mark.parametrize("at", [0, 1, 3, 5])
async def test_goes_on_after_what_was_emitted(at: int) -> None:
    """With tokens emitted by a former owner, the rest follows by number, and the usage counts all."""
    whole = tokens_of(await said(make_prompt([1], seed=4), InstantEngine(5)))

    rest = await said(make_prompt([1], seed=4, emitted=whole[:at]), InstantEngine(5))

    assert tokens_of(rest) == whole[at:]
    assert isinstance(rest[-1], Done)
    assert rest[-1].usage.output_tokens == 5


async def test_closing_gives_the_answer_up() -> None:
    """When nobody listens any more, the engine's answer is closed."""
    engine = InstantEngine(1000)

    async with aclosing(LLMStage(engine, max_prompt=10)(make_prompt([1]))) as stream:
        await anext(stream)
        assert engine.open == 1

    assert engine.open == 0


@pytest.mark.parametrize(
    ("prompt", "refusal", "words"),
    [
        (make_prompt([]), EmptyTurn, "no text"),
        (make_prompt(range(11)), PromptTooLong, "11 tokens, but at most 10"),
        (make_prompt([1], max_output_tokens=0), InvalidParameter, "max_output_tokens"),
        (make_prompt([1], temperature=-0.1), InvalidParameter, "temperature"),
        (make_prompt([1], temperature=float("nan")), InvalidParameter, "temperature"),
        (make_prompt([1], top_p=0.0), InvalidParameter, "top_p"),
        (make_prompt([1], stop=("",)), InvalidParameter, "stop"),
        (make_prompt([1], stop=("x" * 1000,)), InvalidParameter, "stop"),
        (make_prompt([1], top_k=-1), InvalidParameter, "top_k"),
        (make_prompt([1], min_p=1.01), InvalidParameter, "min_p"),
        (make_prompt([1], repetition_penalty=0.0), InvalidParameter, "repetition_penalty"),
        (make_prompt([1], presence_penalty=float("inf")), InvalidParameter, "presence_penalty"),
        (make_prompt([1], frequency_penalty=-2.5), InvalidParameter, "frequency_penalty"),
        (make_prompt([1], logit_bias=((1, 101.0),)), InvalidParameter, "logit_bias"),
        (make_prompt([1], logit_bias=((1, float("nan")),)), InvalidParameter, "logit_bias"),
        (make_prompt([1], logit_bias=((1, 1.0), (1, 2.0))), InvalidParameter, "logit_bias"),
        (make_prompt([1], logit_bias=tuple((n, 1.0) for n in range(301))), InvalidParameter, "logit_bias"),
        (make_prompt([1], stop_ids=tuple(range(65))), InvalidParameter, "stop_ids"),
        (make_prompt([1], logprobs=21), InvalidParameter, "logprobs"),
        (make_prompt([1], speculation=-1), InvalidParameter, "speculation"),
        (make_prompt([1], priority=10), InvalidParameter, "priority"),
        (make_prompt([1], grammar=Grammar("regex", "")), InvalidParameter, "grammar"),
        (make_prompt([1], grammar=Grammar("regex", "x" * 65537)), InvalidParameter, "grammar"),
    ],
)
async def test_refusals(prompt: Prompt, refusal: type[PenstockError], words: str) -> None:
    """What cannot be answered is refused before the engine hears of it, in words that help."""
    with pytest.raises(refusal, match=words):
        await said(prompt, InstantEngine())


async def test_runs_without_tokens_say_nothing() -> None:
    """A run that holds no tokens is no message; the Done counts what the engine had cached."""

    class Hollow:
        async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
            """Say nothing, twice."""
            yield Run(())
            yield Run((), "stop", cached_tokens=2)

    async with aclosing(LLMStage(Hollow(), max_prompt=10)(make_prompt([1, 2, 3]))) as stream:
        messages = [message async for message in stream]

    assert messages == [Done("s", "t", reason="stop", usage=Usage(prompt_tokens=3, cached_tokens=2))]


@given(data=st.data())
def test_published_tokens_are_folded_by_number(data: st.DataObject) -> None:
    """However often and in whatever pieces tokens were published, a new owner knows each once, up to a gap."""
    whole = list(range(100, 100 + data.draw(st.integers(0, 8))))
    published: list[Message] = []
    known = already = data.draw(st.integers(0, len(whole)))
    for _ in range(data.draw(st.integers(0, 6))):
        index, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
        published.append(Tokens("s", "t", index=index, ids=tuple(whole[index:end])))
        known = max(known, end) if index <= known else known

    prompt = resume(make_prompt([1], emitted=whole[:already]), published)

    assert prompt is not None
    assert prompt.emitted == tuple(whole[:known])


def test_nothing_is_left_after_a_done() -> None:
    """An answer whose end was published is not gone on with; giving it up says its end again."""
    done = Done("s", "t", reason="length", usage=Usage(output_tokens=1))
    published: list[Message] = [Tokens("s", "t", index=0, ids=(5,)), done]

    assert resume(make_prompt([1]), published) is None
    assert stopped(make_prompt([1]), published, "cancelled") == done


def test_giving_up_counts_what_was_published() -> None:
    """The end of an answer that is given up says why, and how many tokens went out."""
    published: list[Message] = [Tokens("s", "t", index=1, ids=(6, 7)), Tokens("s", "t", index=3, ids=(8,))]

    done = stopped(make_prompt([1, 2], emitted=[5]), published, "deadline")

    assert done == Done("s", "t", reason="deadline", usage=Usage(prompt_tokens=2, output_tokens=4))


def test_stage_reads_prompts_and_keeps_a_journal() -> None:
    """The stage is wired between its topics, and can be taken over in the middle of an answer."""
    stage: Any = llm_stage(InstantEngine(), max_prompt=5, concurrency=3)

    assert (stage.name, stage.reads, stage.journal, stage.concurrency) == ("llm", PROMPTS, TOKENS, 3)
    assert stage.resume is resume
    assert Sampling() == make_prompt([1]).sampling


async def test_likelihoods_go_out_with_their_tokens_in_pieces() -> None:
    """Each token's likelihoods stand in the message that has the token, and no message has more than fits."""
    likelihoods = tuple(Likelihood(token, -float(token)) for token in range(150))

    class Sure:
        async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
            """All at once."""
            yield Run(tuple(range(150)), "stop", 0, likelihoods)

    async with aclosing(LLMStage(Sure(), max_prompt=10)(make_prompt([1], logprobs=0))) as stream:
        messages: list[Message] = [message async for message in stream]

    runs = [message for message in messages if isinstance(message, Tokens)]
    assert tokens_of(messages) == list(range(150))
    assert [len(run.ids) for run in runs] == [64, 64, 22]
    assert all([one.id for one in run.likelihoods] == list(run.ids) for run in runs)
