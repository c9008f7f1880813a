from __future__ import annotations

from typing import get_args

import numpy as np

from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.queue import FairQueue, Waiting
from stages.preprocess.speech.recogniser import Task, Urgency


def _waiting(session: str, urgency: Urgency = "final", *, tenant: str = "t", language: str = "") -> Waiting:
    task = Task((np.zeros(512, np.float32),), urgency, session, tenant, language)
    return Waiting(task, Answer(), 0.0)


def _filled(*waiting: Waiting) -> FairQueue:
    queue = FairQueue()
    for one in waiting:
        queue.add(one)
    return queue


def _same(_: Task) -> object:
    return None


async def test_final_pieces_go_first() -> None:
    """And never in a batch with others, which they would wait for."""
    partial, eager, final = _waiting("a", "partial"), _waiting("c", "eager"), _waiting("b")
    queue = _filled(partial, eager, final)
    assert queue.take(8, _same) == [final]
    assert queue.take(8, _same) == [eager]
    assert queue.take(8, _same, partials=False) == []
    assert queue.take(8, _same) == [partial]
    assert queue.take(8, _same) == []


async def test_what_final_pieces_may_wait_for_is_bounded() -> None:
    """So many of the others share a batch, and no more; final ones as many as there is room for."""
    some = [_waiting(session, urgency) for urgency in get_args(Urgency) for session in "abc"]
    queue = _filled(*some)
    assert [len(queue.take(8, _same, others=2)) for _ in range(5)] == [3, 2, 1, 2, 1]


async def test_a_session_that_floods_waits_for_itself() -> None:
    """Sessions of a tenant go in turn, and so do tenants, whatever they bring."""
    flood = [_waiting("flood") for _ in range(6)]
    others = [_waiting("quiet"), _waiting("other tenant's", tenant="u")]
    queue = _filled(*flood, *others)
    order = [queue.take(1, _same)[0] for _ in range(5)]
    assert order == [flood[0], others[1], others[0], flood[1], flood[2]]


async def test_a_newer_partial_takes_the_older_ones_place() -> None:
    """Of each session the newest waits; the older one is called off, and counted."""
    old, other, new = _waiting("a", "partial"), _waiting("b", "partial"), _waiting("a", "partial")
    queue = _filled(old, other, new)
    assert old.answer.cancelled()
    assert queue.replaced == 1
    assert queue.count("partial") == 2
    assert queue.take(8, _same) == [new, other]


async def test_final_pieces_of_a_session_stay_in_order_and_all_stay() -> None:
    """What ends a turn is never replaced."""
    finals = [_waiting("a") for _ in range(3)]
    queue = _filled(*finals)
    assert queue.count("final") == 3
    assert queue.take(8, _same) == finals


async def test_what_nobody_wants_is_dropped() -> None:
    """A cancelled piece is not counted, and not recognised."""
    gone, wanted = _waiting("a"), _waiting("b")
    queue = _filled(gone, wanted)
    gone.answer.cancel()
    assert queue.count("final") == 1
    assert queue.take(8, _same) == [wanted]


async def test_only_one_kind_shares_a_batch() -> None:
    """The first one's; the others keep their place for the next batch."""
    some = [_waiting("a", language="en"), _waiting("b", language="de"), _waiting("c", language="en")]
    queue = _filled(*some)
    assert queue.take(8, lambda task: task.language) == [some[0], some[2]]
    assert queue.take(8, lambda task: task.language) == [some[1]]
