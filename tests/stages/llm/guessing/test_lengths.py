"""How far to guess, on made-up costs and luck."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.costs import Costs
from stages.llm.guessing.lengths import MARGIN, Bid, plan

MODEL = Costs.line(base=1.0, sequence=0.0, token=0.05)


@pytest.mark.parametrize(
    ("luck", "sequences", "draft_s", "length"),
    [
        (0.9, 1, 0.1, 6),
        (0.0, 1, 0.1, 0),
        (0.9, 1, 2.0, 0),
        (0.5, 1, 0.1, 2),
        (0.7, 1000, 0.1, 0),
    ],
    ids=["cheap and right", "never right", "dearer than the model", "half right", "crowded"],
)
def test_guessing_goes_as_far_as_it_pays(luck: float, sequences: int, draft_s: float, length: int) -> None:
    """Cheap and lucky guesses go far; dear, unlucky or crowded ones are left out."""
    draft = Costs.line(base=draft_s, sequence=0.0, token=0.01)

    assert plan([Bid(luck, 6, drafted=True)] * sequences, MODEL, draft).lengths == [length] * sequences


def test_the_text_may_guess_where_a_draft_does_not_pay() -> None:
    """Guesses that cost nothing but their verification are made also where those of a draft model are too dear."""
    draft = Costs.line(base=2.0, sequence=0.0, token=0.01)
    bids = [Bid(0.7, 4, drafted=True), Bid(0.7, 4)]

    assert plan(bids, MODEL, draft).lengths == [0, 4]


def test_lengths_differ_within_a_batch() -> None:
    """Who is right more often is guessed for further, and nobody further than he may be."""
    bids = [Bid(0.9, 8), Bid(0.5, 8), Bid(0.05, 8), Bid(0.9, 2), Bid(0.9, 0)]

    lucky, fair, unlucky, short, none = plan(bids, MODEL, None).lengths

    assert lucky > fair > unlucky == 0
    assert (short, none) == (2, 0)


def test_rows_that_are_free_are_used() -> None:
    """Where rows up to the next tile cost nothing, guesses that are hardly ever right fill it, and not one more."""
    model = Costs([(4, 1.0), (8, 2.0)], tile=4)

    assert plan([Bid(0.4, 8)], model, None).lengths == [3]


def test_a_dear_step_may_lead_to_cheap_ones() -> None:
    """The first guess of a batch pays for the draft's whole step, and the others make it worth while."""
    draft = Costs.line(base=0.8, sequence=0.0, token=0.001)
    model = Costs.line(base=1.0, sequence=0.0, token=0.001)

    assert plan([Bid(0.75, 1, drafted=True)], model, draft).lengths == [0]
    assert plan([Bid(0.75, 1, drafted=True)] * 3, model, draft).lengths == [0] * 3
    assert plan([Bid(0.95, 1, drafted=True)] * 3, model, draft).lengths == [1] * 3


def test_the_cost_of_catching_up_counts() -> None:
    """A draft that would have to read a long prompt first is not asked for a short answer."""
    draft = Costs.line(base=0.1, sequence=0.0, token=0.01)

    assert plan([Bid(0.9, 4, drafted=True, once_s=0.2)], MODEL, draft).lengths == [4]
    assert plan([Bid(0.9, 4, drafted=True, once_s=20.0)], MODEL, draft).lengths == [0]


def test_others_in_the_step_count() -> None:
    """Beside a piece of a prompt, whose step is slow anyway, guesses may be free; where rows are dear, they are not."""
    model = Costs([(1, 1.0), (100, 1.0), (101, 50.0), (1000, 5000.0)])

    assert plan([Bid(0.5, 4)], model, None, others=10).lengths == [4]
    assert plan([Bid(0.5, 4)], model, None, others=99).lengths == [0]


BIDS = st.lists(st.builds(Bid, st.floats(0, 1), st.integers(0, 2), drafted=st.booleans()), min_size=1, max_size=3)


@given(BIDS, st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0.001, 0.3))
def test_never_worse_than_no_guesses_by_its_own_account(
    bids: list[Bid], base: float, draft_s: float, token: float
) -> None:
    """What is chosen is as fast as it says, and either no guesses or better than none by the margin."""
    model, draft = Costs.line(base, 0.0, token), Costs.line(draft_s, 0.0, token / 4)

    best = plan(bids, model, draft)

    assert best.speed == pytest.approx(speed(bids, best.lengths, model, draft))
    assert best.plain == pytest.approx(speed(bids, [0] * len(bids), model, draft))
    assert not any(best.lengths) or best.speed > MARGIN * best.plain


@given(BIDS.filter(lambda bids: not any(bid.drafted for bid in bids)), st.floats(0.01, 1), st.floats(0.01, 0.3))
def test_no_choice_is_much_better(bids: list[Bid], base: float, token: float) -> None:
    """Of all lengths that there are, none gives more than the margin beyond what was chosen."""
    model = Costs.line(base, 0.0, token)

    best = plan(bids, model, None)

    all_lengths = itertools.product(*(range(bid.most + 1) for bid in bids))
    assert max(speed(bids, list(lengths), model, None) for lengths in all_lengths) <= MARGIN * best.speed * 1.03


def speed(bids: list[Bid], lengths: list[int], model: Costs, draft: Costs | None) -> float:
    """Tokens a second, written out."""
    tokens = sum(sum(bid.luck**n for n in range(length + 1)) for bid, length in zip(bids, lengths, strict=True))
    seconds = model.step(len(bids), len(bids) + sum(lengths))
    for ahead in range(max(lengths)):
        drafted = sum(bid.drafted and length > ahead for bid, length in zip(bids, lengths, strict=True))
        seconds += draft.step(drafted, drafted) if draft and drafted else 0.0
    return tokens / seconds
