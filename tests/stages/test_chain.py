"""The three stages in a row, as the embedded pipe runs them: a turn in, its text out."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from pipeline.errors import EmptyTurn
from pipeline.messages import Delta, Finished, Sampling, Turn, Utterance
from pipeline.stage import chain
from stages.llm.engine import TorchEngine
from stages.llm.models.model import LoadedModel
from stages.llm.stage import llm_stage
from stages.postprocess.stage import postprocess_stage
from stages.preprocess.text import TextStage, text_stage


async def told(model: LoadedModel, engine: TorchEngine, turn: Turn) -> list[Any]:
    """All that a client is told of `turn`."""
    text = TextStage(model.tokenizer, context=model.context, models=("tiny",), system="Be kind.")
    whole = chain(
        text_stage(text), llm_stage(engine, max_prompt=model.context - 1), postprocess_stage(model.vocabulary)
    )
    assert whole.each is not None
    async with asyncio.timeout(20), aclosing(whole.each(turn)) as stream:
        return [message async for message in stream]


def make_turn(text: str, session: str, **sampling: Any) -> Turn:
    """A turn that says `text`."""
    return Turn(session, "t", (Utterance("user", text),), Sampling(max_output_tokens=30, **sampling))


async def test_many_sessions_through_all_stages(model: LoadedModel) -> None:
    """Every session gets its own answer as text, in order, then one end; the same seed gives the same again."""
    async with TorchEngine(model) as engine:
        turns = [make_turn(f"Question {n % 4}?", f"s{n}", seed=n % 4, temperature=0.8) for n in range(8)]
        answers = await asyncio.gather(*(told(model, engine, turn) for turn in turns))

    texts = []
    for *deltas, last in answers:
        assert isinstance(last, Finished)
        assert last.usage.prompt_tokens > 0
        assert last.length == sum(len(delta.text) for delta in deltas if isinstance(delta, Delta))
        texts.append("".join(delta.text for delta in deltas))
    assert texts[:4] == texts[4:]
    assert len(set(texts[:4])) == 4


async def test_refusal_comes_through(model: LoadedModel) -> None:
    """What the first stage refuses reaches whoever runs the chain."""
    async with TorchEngine(model) as engine:
        with pytest.raises(EmptyTurn):
            await told(model, engine, make_turn(" ", "s"))
