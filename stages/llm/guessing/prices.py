"""What guessing gives and costs, in tokens: time is worth the tokens that it would give otherwise. Knows no model."""

from __future__ import annotations

from typing import NamedTuple

from stages.llm.costs import Costs
from stages.llm.guessing.lengths import Bid

LENGTH, LEARNED = 64.0, 0.1
"""Tokens that an answer is thought to have before any has ended, and how much the latest one counts."""

SOON = 16.0
"""Tokens that an answer is thought to go on for at least, where it has room for them."""

MARGIN = 1.25
"""Reading must be expected to give so many times what it costs: answers may end sooner than others did."""


AT_FIRST = 0.8
"""What steps with guesses are thought to give before any was seen, as a share of what they should: it is seldom all."""

TRUSTED, HOPE = 0.1, 0.001
"""How much the latest step with guesses says of how far the account of such steps is right, and how fast that is
forgotten while nothing is guessed."""

FAR = 1.2
"""A step that was so many times better than its account says no more than that."""


class Gain(NamedTuple):
    """What guesses for a sequence give in a step: `tokens`, of which `net` are more than their time is worth."""

    net: float
    tokens: float


class Account(NamedTuple):
    """What a step should give, in tokens a second; `drafted`: the draft model has a part in it."""

    speed: float
    drafted: bool


class Prices:
    """`speed` (tokens a second, of all sequences together) says what time is worth; costs are those of a step.

    Without costs nothing has a price.
    """

    def __init__(self, model: Costs | None = None, draft: Costs | None = None) -> None:
        self.model, self.draft = model, draft
        self.speed = 0.0
        self._length = LENGTH
        self._trust: dict[tuple[int, bool], float] = {}

    def ended(self, tokens: int) -> None:
        """An answer has ended after so many tokens."""
        self._length += LEARNED * (tokens - self._length)

    def trust(self, count: int, *, drafted: bool) -> float:
        """What steps of about `count` sequences with guesses have given, as a share of what they should have."""
        return self._trust.get((count.bit_length(), drafted), AT_FIRST)

    def saw(self, count: int, *, drafted: bool, share: float) -> None:
        """Such a step has given this share of what it should have. Answers end, and much else is not accounted for."""
        trust = self.trust(count, drafted=drafted)
        self._trust[count.bit_length(), drafted] = trust + TRUSTED * (min(FAR, share) - trust)

    def hope(self, count: int, steps: int = 1) -> None:
        """Nothing was guessed in so many `steps`: what was seen long ago need not hold for ever."""
        for drafted in (True, False):
            trust = self.trust(count, drafted=drafted)
            self._trust[count.bit_length(), drafted] = AT_FIRST + (1 - HOPE) ** steps * (trust - AT_FIRST)

    def gain(self, bid: Bid, count: int) -> Gain:
        """What guesses for one of `count` sequences give, made as far as they are worth their price.

        The draft model's time is shared by all sequences, and so is its price: at the margin one more may seem cheap,
        but not all can be at the margin.
        """
        price = self._row(count) + (self._drafted(count) if bid.drafted else 0.0)
        net, tokens = -self.speed * bid.once_s, 0.0
        right = min(1.0, self.trust(count, drafted=bid.drafted))
        for _ in range(bid.most):
            right *= bid.luck
            if right <= price:
                break
            net += right - price
            tokens += right
        return Gain(net, tokens)

    def reading(self, tokens: int) -> float:
        """Seconds in which the draft model reads so many tokens beside the one that it reads anyway."""
        return self.draft.step(1, tokens) - self.draft.step(1, 1) if self.draft else 0.0

    def reading_pays(self, bid: Bid, lag: int, count: int, *, output: int, room: int) -> bool:
        """Whether the draft model should read `lag` tokens of one of `count` sequences to guess for it from then on.

        Its answer has `output` tokens, and room for so many more.
        """
        if self.draft is None:
            return True
        gain = self.gain(bid, count)
        steps = min(room, max(SOON, self._length - output)) / (1 + gain.tokens)
        return gain.net * steps > MARGIN * self.speed * self.draft.step(1, lag)

    def _row(self, count: int) -> float:
        """Tokens that the verification of a guess costs."""
        if self.model is None:
            return 0.0
        return self.speed * (self.model.step(count, 4 * count) - self.model.step(count, count)) / (3 * count)

    def _drafted(self, count: int) -> float:
        """Tokens that a guess of the draft model costs beside that."""
        return self.speed * self.draft.step(count, count) / count if self.draft else 0.0
