"""How far to guess for each sequence of a batch, so that most tokens come out a second. Pure; knows no model.

With luck a, the n-th guess for a sequence is right with probability a^n. A step of S sequences then gives S + Σ a^n
tokens for T(S + rows) + the drafting, where the rows and the sum go over all guesses made, and a draft model computes
the n-th guesses of all its sequences at once. The guesses are tried in the order of what they give for what they cost
alone, and the best point in that order is taken: not the first at which one more does not pay, since costs have steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.llm.costs import LEAST_S, Costs

LEAST = 0.03
"""Guesses less probable than that are not considered."""

MARGIN = 1.03
"""Guessing must give so many times what it gives without, for costs and luck are known only roughly."""


HOPELESS = 0.5
"""A guess that gives less than so much of the best speed, for what it costs alone, ends the search."""


@dataclass(frozen=True, slots=True)
class Bid:
    """What can be guessed for a sequence: at most `most` tokens, each right with probability `luck` if all before are.

    `drafted`: by the draft model, which needs `once_s` before the first (its share of catching up with the text).
    """

    luck: float
    most: int
    drafted: bool = False
    once_s: float = 0.0

    def expected(self, length: int) -> float:
        """How many of so many guesses will be right."""
        return sum(self.luck**n for n in range(1, length + 1))


@dataclass(frozen=True, slots=True)
class Plan:
    """How far to guess for each bid, and what that is expected to give, in tokens a second; `plain` without guesses."""

    lengths: list[int]
    speed: float
    plain: float


def plan(
    bids: Sequence[Bid], model: Costs, draft: Costs | None, *, prompts: int = 0, others: int = 0, margin: float = MARGIN
) -> Plan:
    """The best lengths for `bids` (one for each sequence), where the step computes `others` rows of `prompts`, too.

    Those have to be computed in any case, and their time is no reason to guess: time is then worth the tokens that it
    would give in a step without them, or soon, when the prompts have become streams as well.
    """
    if not bids:
        return Plan([], 0.0, 0.0)
    worth = 0.0
    if others:
        running = len(bids) + prompts
        worth = max(plan(bids, model, draft, margin=margin).speed, running / model.step(running, running))

    def gain(tokens: float, seconds: float) -> float:
        return tokens - worth * seconds if others else tokens / seconds

    count = len(bids)
    ranked = _ranked(bids, model, draft, others)
    plain_s = model.step(count, count + others)
    best = gain(count, plain_s)
    least = gain(count, plain_s / margin)
    speed = count / plain_s
    tokens, drafting_s, taken = float(count), 0.0, 0
    beside: dict[int, int] = {}
    for number, (worthwhile, behind, who, right) in enumerate(ranked, start=1):
        if worthwhile < HOPELESS * max(speed, worth):
            break
        tokens += right
        if draft and bids[who].drafted:
            before = beside.get(behind, 0)
            beside[behind] = before + 1
            drafting_s += draft.step(before + 1, before + 1) - (draft.step(before, before) if before else 0.0)
            drafting_s += bids[who].once_s if behind == 0 else 0.0
        seconds = drafting_s + model.step(count, count + others + number)
        if (here := gain(tokens, seconds)) > max(best, least):
            best, taken, speed = here, number, tokens / seconds
    lengths = [0] * count
    for _, _, who, _ in ranked[:taken]:
        lengths[who] += 1
    return Plan(lengths, speed, count / plain_s)


def _ranked(bids: Sequence[Bid], model: Costs, draft: Costs | None, others: int) -> list[tuple[float, int, int, float]]:
    """Each guess that may be made, the best first.

    What it gives, in tokens a second, for what it costs alone; minus how far ahead it is
    (from 0), whose it is, and how probably it is right.
    """
    count = len(bids)
    alone = draft.step(count, count) / count if draft else 0.0
    row = (model.step(count, 4 * count + others) - model.step(count, count + others)) / (3 * count)
    guesses = []
    for who, bid in enumerate(bids):
        price = max(LEAST_S, row + (alone if bid.drafted else 0.0))
        right = 1.0
        for ahead in range(bid.most):
            right *= bid.luck
            if right < LEAST:
                break
            guesses.append((right / price, -ahead, who, right))
    return sorted(guesses, reverse=True)
