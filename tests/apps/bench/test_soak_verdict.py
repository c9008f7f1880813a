"""What must hold of a soak, and what is told where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from apps.bench.client import Ended
from apps.bench.soak import Sample
from apps.bench.soak_verdict import all_ended, flat, in_time, nothing_left, typed, verdicts

GOOD = Ended("completed", 0.3, 1.0, 5)
REFUSED = Ended("failed", None, 0.1, code="overloaded", retry_after=2.0)
BEFORE = Sample(0.0, 100.0, 0.0, 20, 15)


def after(**changes: Any) -> Sample:
    """What the server is like when all is over."""
    return BEFORE._replace(at=60.0, **changes)


def test_a_soak_that_held() -> None:
    """Answers in time, typed refusals, flat memory and nothing left: everything holds."""
    samples = [BEFORE._replace(at=float(n), resident_mb=100 + n % 3) for n in range(40)]

    found = verdicts([GOOD, REFUSED], {"gone by itself": 3}, samples, BEFORE, after(resident_mb=103), {}, 2.0)

    assert all(verdict.holds for verdict in found)


@pytest.mark.parametrize(
    "wrong",
    [
        REFUSED._replace(code=None),
        REFUSED._replace(code="internal_error"),
        REFUSED._replace(code="deadline_exceeded"),
        REFUSED._replace(retry_after=None),
    ],
    ids=["no code", "an error of ours", "timed out", "no time to come back"],
)
def test_a_refusal_has_a_type_and_a_time_to_come_back(wrong: Ended) -> None:
    """One that has not is counted, and nothing but refusals is no service either."""
    assert typed([GOOD, REFUSED]).holds
    assert "1 of them" in typed([GOOD, REFUSED, wrong]).what
    assert not typed([GOOD, wrong]).holds
    assert not typed([REFUSED]).holds


def test_a_turn_without_an_end_is_told() -> None:
    """A client that leaves by itself is none; a closed connection or a timeout is."""
    assert all_ended({"gone by itself": 5}).holds
    assert not all_ended({"TimeoutError": 1}).holds
    assert "ConnectionClosedError" in all_ended({"ConnectionClosedError": 2}).what


def test_who_was_let_in_is_answered_in_time() -> None:
    """The first tokens' 99th percentile counts, and what was refused does not."""
    assert in_time([GOOD] * 99 + [GOOD._replace(first=9.0)], 2.0).holds
    assert not in_time([GOOD] * 90 + [GOOD._replace(first=9.0)] * 10, 2.0).holds
    assert in_time([REFUSED], 2.0).holds


def test_memory_may_settle_but_not_grow() -> None:
    """The second quarter is compared with the last; too few looks tell nothing."""
    assert flat([50.0] * 10 + [500.0] * 30).holds
    assert not flat([500.0 + 5 * n for n in range(40)]).holds
    assert not flat([500.0]).holds


@pytest.mark.parametrize(
    ("changes", "left"), [({"tasks": 16}, {}), ({"files": 21}, {}), ({}, {"llm_running": 1.0})], ids=str
)
def test_anything_left_over_is_told(changes: dict[str, Any], left: dict[str, float]) -> None:
    """A task, a file descriptor, or a turn that is still there."""
    assert nothing_left(BEFORE, after(), {}).holds
    assert not nothing_left(BEFORE, after(**changes), left).holds
