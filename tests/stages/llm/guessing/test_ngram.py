"""The text as a drafter: what it finds is what a search through all of it finds, and indexing never looks back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.guessing.ngram import LEAST, LONGEST, PLACES, Match, NGramIndex

TOKENS = st.lists(st.integers(0, 3), max_size=PLACES * 2)
EVERYTHING = 10**9


def searched(text: list[int]) -> Match | None:
    """The longest earlier place of the end of `text`, of these the most recent, by looking everywhere."""
    best = None
    for place in range(LEAST, len(text)):
        length = 0
        while length < min(place, LONGEST) and text[place - length - 1] == text[len(text) - length - 1]:
            length += 1
        if length >= LEAST and (best is None or (length, place) > (best.length, best.end)):
            best = Match(place, length)
    return best


def index_of(text: list[int]) -> NGramIndex:
    """All of `text`, indexed."""
    index = NGramIndex()
    index.extend(text, EVERYTHING)
    return index


@given(TOKENS)
def test_finds_what_a_search_finds(tokens: list[int]) -> None:
    """After each token of a text, the place is that of a search through the whole text."""
    index, text = NGramIndex(), []

    for token in tokens:
        text.append(token)
        index.extend(text, EVERYTHING)
        assert index.find(text) == searched(text)


@given(TOKENS, st.lists(st.integers(1, 9), min_size=1))
def test_pieces_do_not_matter(tokens: list[int], sizes: list[int]) -> None:
    """A text that is indexed in pieces, and asked about between them, is indexed as it is at once."""
    index = NGramIndex()

    while index.size < len(tokens):
        for size in sizes:
            index.extend(tokens, size)
            index.find(tokens)

    assert index.find(tokens) == index_of(tokens).find(tokens)


@given(st.lists(st.integers(0, 2), min_size=PLACES * 4, max_size=PLACES * 5))
def test_what_is_found_stands_there(tokens: list[int]) -> None:
    """Also where there are more places than are looked at, a match is one, and as long as it says."""
    match = index_of(tokens).find(tokens)

    assert match is not None
    assert tokens[match.end - match.length : match.end] == tokens[-match.length :]


def test_a_match_that_goes_on_is_never_lost() -> None:
    """A long quotation is followed to its end, although its pairs of tokens stand at many later places, too."""
    quoted = [token for number in range(20) for token in (1, 2, 3 + number)]
    text = [*quoted, *(1, 2, 90, 2) * (2 * PLACES), 80]
    index = index_of(text)
    text += quoted[:3]

    for expected in quoted[3:]:
        index.extend(text, EVERYTHING)
        match = index.find(text)
        assert match is not None
        assert index.guess(text, match, 1) == [expected]
        text.append(expected)


def test_what_is_not_indexed_yet_is_not_found() -> None:
    """A long prompt is indexed over several steps; until then what is there of it serves."""
    text = [1, 2, 3, 4, 5, 1, 2]
    index = NGramIndex()

    index.extend(text, 1)
    assert index.find(text) is None
    index.extend(text, 2)
    assert index.find(text) == Match(2, 2)


@pytest.mark.parametrize(("text", "count", "expected"), [([1, 2, 9, 1, 2], 1, [9]), ([1, 2, 1, 2], 5, [1, 2, 1, 2, 1])])
def test_guesses_what_followed(text: list[int], count: int, expected: list[int]) -> None:
    """What followed there is guessed, and at the end of the text it begins again."""
    index = index_of(text)
    match = index.find(text)

    assert match is not None
    assert index.guess(text, match, count) == expected


def test_indexing_reads_new_tokens_only() -> None:
    """What is indexed is not read again, however long the text becomes."""

    class Watched(list[int]):
        reads = 0

        def __getitem__(self, at: object) -> object:  # type: ignore[override]
            assert isinstance(at, int)
            self.reads += 1
            return super().__getitem__(at)

    text = Watched(range(1000))
    index = index_of(text)
    text.reads = 0
    text.append(5)

    index.extend(text, EVERYTHING)

    assert text.reads <= LEAST


def test_a_place_beyond_the_text_gives_nothing() -> None:
    """A match of another text never holds a step up."""
    assert index_of([1, 2, 3]).guess([1, 2, 3], Match(3, 2), 4) == []
