"""What guessing gives and costs, and how far its account is trusted."""

from __future__ import annotations

import pytest

from stages.llm.costs import Costs
from stages.llm.guessing.lengths import Bid
from stages.llm.guessing.prices import AT_FIRST, Prices
from stages.llm.guessing.trials import SHARE, Purse

DRAFTED = Bid(0.9, 8, drafted=True)


def prices(speed: float = 1.0) -> Prices:
    """Of a model of a second a step, and a draft of a fifth of that, for so many tokens a second."""
    made = Prices(Costs.line(1.0, 0.0, 0.02), Costs.line(0.2, 0.0, 0.005))
    made.speed = speed
    return made


def test_what_is_drafted_costs_more() -> None:
    """Of guesses that are as good, those of the text give more beyond their price; of dear ones fewer are made."""
    text, drafted = prices().gain(Bid(0.9, 8), 1), prices().gain(DRAFTED, 1)

    assert text.net > drafted.net > 0
    assert prices(4.0).gain(DRAFTED, 1).tokens < drafted.tokens


@pytest.mark.parametrize(
    ("lag", "output", "room", "pays"), [(100, 0, 500, True), (10_000, 0, 500, False), (300, 0, 2, False)]
)
def test_reading_pays_by_what_is_left(lag: int, output: int, room: int, pays: bool) -> None:
    """A draft reads on for a long answer, not for a short one, and not too much."""
    assert prices().reading_pays(DRAFTED, lag, 1, output=output, room=room) is pays


def test_short_answers_are_learned() -> None:
    """Where answers turn out to be short, reading that paid before does not any more."""
    learned = prices()
    assert learned.reading_pays(DRAFTED, 3000, 1, output=0, room=500)

    for _ in range(50):
        learned.ended(5)

    assert not learned.reading_pays(DRAFTED, 3000, 1, output=0, room=500)


def test_trust_is_lost_and_comes_back() -> None:
    """Steps that give half of what they should count half, for batches of that size only; slowly that is forgotten."""
    learned = prices()

    for _ in range(60):
        learned.saw(16, drafted=True, share=0.5)
    assert learned.trust(16, drafted=True) == pytest.approx(0.5, abs=0.01)
    assert learned.trust(16, drafted=False) == learned.trust(1, drafted=True) == AT_FIRST
    assert learned.gain(DRAFTED, 16).net < prices().gain(DRAFTED, 16).net

    for _ in range(5000):
        learned.hope(16)
    assert learned.trust(16, drafted=True) == pytest.approx(AT_FIRST, abs=0.01)


def test_trials_are_paid_for_by_a_share_of_the_time() -> None:
    """So often can a trial be paid as a small share of the time allows, and again at once if it has paid itself."""
    purse, paid = Purse(), 0

    for _ in range(1000):
        purse.earn(1.0)
        paid += purse.pay(0.5)
    assert paid == pytest.approx(1000 * SHARE / 0.5, abs=1)

    purse = Purse()
    purse.gain(0.5)
    assert purse.pay(0.5)
    assert not purse.pay(0.5)
