"""Which offsets may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.window import Window


def test_nothing_is_committable_before_the_first_record() -> None:
    """A partition from which nothing was taken has nothing to commit."""
    assert Window().committable is None


def test_the_oldest_unfinished_holds_back_the_rest() -> None:
    """Offsets that finish early wait for those before them."""
    window = Window()
    for offset in (5, 6, 9):
        assert window.start(offset)
    window.finish(6)
    window.finish(9)
    assert (window.committable, window.span, window.next) == (5, 3, 10)
    window.finish(5)
    assert (window.committable, window.span) == (10, 0)


def test_an_offset_is_taken_once() -> None:
    """A record that is read again after a rebalance is not begun again."""
    window = Window()
    assert window.start(3)
    assert not window.start(3)
    assert not window.start(2)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_the_committable_offset_is_the_least_unfinished(order: list[int], count: int) -> None:
    """In whatever order work finishes, nothing unfinished is ever committed."""
    window = Window()
    for offset in range(12):
        window.start(offset)
    for offset in order[:count]:
        window.finish(offset)
    assert window.committable == min(order[count:], default=12)
