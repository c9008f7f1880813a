"""What must hold of a soak, judged from what was seen. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from apps.bench.client import Ended
from apps.bench.report import spread

if TYPE_CHECKING:
    from apps.bench.soak import Sample

TYPED = frozenset({"overloaded", "too_many_responses", "rate_limit_exceeded"})
GROWTH, ROOM_MB = 1.05, 16.0
"""How much more memory the last quarter may have than the second: what allocators and caches need to settle."""
ALLOWED = frozenset({"gone by itself", "no client was free"})


class Verdict(NamedTuple):
    """Whether something holds, in words with its figures."""

    what: str
    holds: bool


def verdicts(
    ended: Sequence[Ended],
    troubles: Mapping[str, int],
    samples: Sequence[Sample],
    before: Sample,
    after: Sample,
    left: Mapping[str, float],
    budget_s: float,
) -> list[Verdict]:
    """What must hold, in the order in which it is told."""
    return [
        all_ended(troubles),
        typed(ended),
        in_time(ended, budget_s),
        flat([sample.resident_mb - sample.prefix_mb for sample in samples]),
        nothing_left(before, after, left),
    ]


def all_ended(troubles: Mapping[str, int]) -> Verdict:
    """Each turn had its end, unless its client left."""
    lost = {name: count for name, count in troubles.items() if name not in ALLOWED}
    return Verdict(f"turns without an end: {lost or 'none'}", not lost)


def typed(ended: Sequence[Ended]) -> Verdict:
    """Whoever got no answer was told why in a code, and when to come back."""
    refused = [one for one in ended if not one.answered]
    wrong = [one for one in refused if one.code not in TYPED or not one.retry_after]
    answered = len(ended) - len(refused)
    words = f"{len(refused)} refusals, {len(wrong)} of them without a type or a time to come back; {answered} answers"
    return Verdict(words, not wrong and answered > 0)


def in_time(ended: Sequence[Ended], budget_s: float) -> Verdict:
    """Whoever was let in had the first token within the longest wait and what it takes without one."""
    first = [one.first for one in ended if one.answered and one.first is not None]
    worst = spread(first).p99 if first else 0.0
    return Verdict(f"first token of the admitted: p99 {worst:.2f} s of {budget_s:.2f} s", worst <= budget_s)


def flat(resident: Sequence[float]) -> Verdict:
    """The last quarter's most memory is the second one's."""
    quarter = len(resident) // 4
    if not quarter:
        return Verdict("too short to tell whether memory is flat", False)
    second, last = max(resident[quarter : 2 * quarter]), max(resident[-quarter:])
    words = f"memory besides what is kept for next turns: {second:.0f} MB at most in the second quarter, {last:.0f} in"
    return Verdict(f"{words} the last", last <= second * GROWTH + ROOM_MB)


def nothing_left(before: Sample, after: Sample, left: Mapping[str, float]) -> Verdict:
    """No turn, session, place of the engine, task or file descriptor is left."""
    tasks, files = after.tasks - before.tasks, after.files - before.files
    return Verdict(
        f"left over: {dict(left) or 'no turn, session or sequence'}, {tasks} tasks, {files} file descriptors",
        not left and tasks <= 0 and files <= 0,
    )
