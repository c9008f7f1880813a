"""The instant engine keeps an engine's promises, so that tests on it mean something."""

from __future__ import annotations

import pytest

from stages.llm.instant import InstantEngine
from tests.stages.llm.running import answer, begin, make_prompt


async def test_answers_depend_on_the_seed_alone() -> None:
    """The same seed gives the same answer, another seed another one."""
    one, again, other = [(await answer(InstantEngine(), make_prompt([1], seed=seed)))[0] for seed in (1, 1, 2)]

    assert one == again
    assert one != other


@pytest.mark.parametrize(("limit", "finish"), [(3, "length"), (8, "length"), (9, "stop")])
async def test_answers_are_no_longer_than_allowed(limit: int, finish: str) -> None:
    """An answer that is cut off says so."""
    ids, reason, _ = await answer(InstantEngine(8, run=5), make_prompt([1], max_output_tokens=limit))

    assert (len(ids), reason) == (min(limit, 8), finish)


async def test_given_up_answers_are_closed() -> None:
    """Closing the stream closes the answer."""
    engine = InstantEngine(100, each_s=0.001)

    await begin(engine, make_prompt([1]), tokens=2)

    assert engine.open == 0
