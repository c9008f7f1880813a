"""A turn that is given up in the middle of its answer says what it has cost, however the stages share processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack

import pytest

from pipeline.errors import Overloaded
from pipeline.headers import DEADLINE
from pipeline.memory import MemoryBus
from pipeline.messages import Cancel, Delta, Finished, Prompt, Turn, Usage
from pipeline.stage import LATE, Stage, Stream, chain
from pipeline.topics import REPLIES, TURNS
from stages.detokenize import Vocabulary
from stages.llm.stage import Run, llm_stage
from stages.postprocess.stage import postprocess_stage
from tests.pipeline.fakes import make_loop, make_turn, put, running, tapping
from tests.stages import models

TOKENIZER = models.byte_level()
HELLO = tuple(TOKENIZER.encode("Hello", add_special_tokens=False))
COST = Usage(prompt_tokens=3, output_tokens=len(HELLO))


class Stuck:
    """An engine that says Hello, and then nothing more, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """See `Engine.generate`."""
        yield Run(HELLO)
        if self._error:
            raise self._error
        await asyncio.Event().wait()


async def to_prompt(turn: Turn) -> Stream:
    """A turn's prompt."""
    yield Prompt(turn.session, turn.turn, ids=(7, 8, 9))


def grouped(groups: Sequence[int], engine: Stuck) -> list[Stage]:
    """The three stages, so many of them chained each time."""
    stages = [
        Stage("text", TURNS, each=to_prompt),
        llm_stage(engine, max_prompt=100),
        postprocess_stage(Vocabulary(TOKENIZER)),
    ]
    begins = [sum(groups[:n]) for n in range(len(groups))]
    return [chain(*stages[begin : begin + size]) for begin, size in zip(begins, groups, strict=True) if size > 1] + [
        stages[begin] for begin, size in zip(begins, groups, strict=True) if size == 1
    ]


@pytest.mark.parametrize("reason", ["cancelled", "deadline"])
@pytest.mark.parametrize("groups", [(1, 1, 1), (3,), (2, 1), (1, 2)], ids=str)
async def test_what_it_has_cost_is_told(groups: Sequence[int], reason: str) -> None:
    """A cancel is told as cancelled and a deadline as failed, once, with the tokens that went in and came out."""
    async with MemoryBus(partitions=2) as bus, tapping(bus, REPLIES) as replies, AsyncExitStack() as stack:
        for stage in grouped(groups, Stuck()):
            _ = await stack.enter_async_context(running(make_loop(stage, bus)))
        late = {DEADLINE: str(time.time() + 0.4)} if reason == "deadline" else {}
        await put(bus, make_turn("t1"), **late)
        delta, *_ = await replies.take(1)
        if reason == "cancelled":
            await put(bus, Cancel("s", "t1"))
        (last,) = await replies.take(1)
        assert await replies.silent()

    assert isinstance(delta, Delta)
    assert isinstance(last, Finished)
    assert (last.reason, last.usage) == (reason, COST)
    assert (last.status, last.problem) == (("cancelled", None) if reason == "cancelled" else ("failed", LATE))


@pytest.mark.parametrize("error", [ValueError("a bug"), Overloaded("no room", retry_after=3.0)], ids=["bug", "refusal"])
@pytest.mark.parametrize("groups", [(1, 1, 1), (3,), (2, 1), (1, 2)], ids=str)
async def test_what_fails_in_mid_answer_fails_at_once(groups: Sequence[int], error: Exception) -> None:
    """A turn that fails after its first tokens is told as failed, once, with what it has cost, long before its end."""
    stages = grouped(groups, Stuck(error))
    async with MemoryBus(partitions=2) as bus, tapping(bus, REPLIES) as replies, AsyncExitStack() as stack:
        for stage in stages:
            _ = await stack.enter_async_context(running(make_loop(stage, bus)))
        await put(bus, make_turn("t1"))
        delta, last = await replies.take(2)
        assert await replies.silent()

    assert isinstance(delta, Delta)
    assert (last.status, last.reason, last.usage) == ("failed", "failed", COST)
    assert last.problem.code == ("overloaded" if isinstance(error, Overloaded) else "internal_error")
    assert last.problem.retry_after == (3.0 if isinstance(error, Overloaded) else None)


@pytest.mark.parametrize("groups", [(1, 1, 1), (3,), (2, 1), (1, 2)], ids=str)
async def test_a_turn_that_comes_too_late_fails(groups: Sequence[int]) -> None:
    """A turn whose time is over before it is begun ends as failed, once, and says that it was the time."""
    async with MemoryBus(partitions=2) as bus, tapping(bus, REPLIES) as replies, AsyncExitStack() as stack:
        for stage in grouped(groups, Stuck()):
            _ = await stack.enter_async_context(running(make_loop(stage, bus)))
        await put(bus, make_turn("t1"), **{DEADLINE: str(time.time() - 1)})
        (last,) = await replies.take(1)
        assert await replies.silent()

    assert (last.status, last.reason, last.problem) == ("failed", "deadline", LATE)
