"""Stop strings are found wherever the text was cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.stops import StopFinder

TEXT = st.text("ab\n", max_size=24)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


def by_hand(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that is complete first, tried character by character."""
    for end in range(1, len(text) + 1):
        sizes = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if sizes:
            return text[: end - max(sizes)], True
    return text, False


@given(text=TEXT, stops=STOPS, data=st.data())
def test_cut_does_not_depend_on_the_pieces(text: str, stops: list[str], data: st.DataObject) -> None:
    """However the text is cut, what passes is the text before the stop string that is complete first."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    finder = StopFinder(stops)

    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    passed = "".join(finder.feed(piece) for piece in pieces) + finder.flush()

    assert (passed, finder.found) == by_hand(text, stops)


@given(text=TEXT, stops=STOPS)
def test_nothing_is_held_back_without_need(text: str, stops: list[str]) -> None:
    """What is held back is the beginning of a stop string."""
    finder = StopFinder(stops)

    passed = finder.feed(text)

    held = finder.flush()
    assert finder.found or passed + held == text
    assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_empty_stop_string_is_none() -> None:
    """An empty stop string stops nothing."""
    finder = StopFinder([""])

    assert (finder.feed("text"), finder.found) == ("text", False)
