"""A conversation is cut at its beginning, in large steps, so that prompts begin alike for many turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.messages import Utterance
from stages.preprocess.text.window import left, longest, starts

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def talk_of(sizes: list[int]) -> list[Utterance]:
    """User and assistant by turns, the last one the user."""
    sides = ("user", "assistant") if len(sizes) % 2 else ("assistant", "user")
    return [Utterance(sides[n % 2], "x" * size) for n, size in enumerate(sizes)]  # type: ignore[arg-type]


@given(sizes=SIZES, chunk=st.integers(1, 60))
def test_kept_part_begins_with_the_user(sizes: list[int], chunk: int) -> None:
    """The kept part begins at the beginning or with the user, and the last message is always a place to begin."""
    talk = talk_of(sizes)

    begins = starts(talk, chunk)

    assert begins == sorted(set(begins))
    assert begins[0] == 0
    assert all(talk[begin].role == "user" for begin in begins[1:])
    assert begins[-1] == len(talk) - 1


@given(sizes=SIZES, more=SIZES, chunk=st.integers(1, 60))
def test_places_stay_when_the_talk_goes_on(sizes: list[int], more: list[int], chunk: int) -> None:
    """What comes later does not move the places to begin; only the last message's own is given up."""
    talk = talk_of(sizes)
    longer = [*talk, *(Utterance("assistant" if n % 2 == 0 else "user", "x" * size) for n, size in enumerate(more))]

    assert set(starts(talk, chunk)[:-1]) <= set(starts(longer, chunk))


@given(sizes=SIZES, limit=st.integers(0, 300), chunk=st.integers(1, 60), more=st.integers(0, 40))
def test_longest_that_fits_is_found(sizes: list[int], limit: int, chunk: int, more: int) -> None:
    """The first place from which everything fits is found, however unevenly characters make tokens; else the last."""
    talk = talk_of(sizes)
    begins = starts(talk, chunk)
    texts = [range(sum(size * (more if size % 3 else 1) for size in sizes[begin:])) for begin in begins]
    tried: list[int] = []

    def encode(place: int) -> range:
        tried.append(place)
        return texts[place]

    expected = next((text for text in texts if len(text) <= limit), texts[-1])
    assert longest(left(lambda begin: talk[begin:], begins), limit, encode) == expected
    assert len(tried) == len(set(tried))
