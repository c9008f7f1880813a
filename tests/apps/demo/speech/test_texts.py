"""What the demo's ear is taught to hear."""

import random
from itertools import islice

import pytest

from apps.demo.speech.texts import LONGEST, Unit, held_out, normalised, pieces, sentences, speakable, units, words


def drawn(*, held: bool, count: int = 300) -> list[str]:
    """Some sentences of one half."""
    return list(islice(sentences(random.Random(3), held=held), count))


def test_held_out_sentences_are_never_trained() -> None:
    """A sentence belongs to one half for good, whatever the seed; about one in twenty is held out."""
    trained, kept = set(drawn(held=False)), set(drawn(held=True, count=100))

    assert not trained & kept
    assert all(map(held_out, kept))
    share = sum(held_out(f"{word} {other}") for word in words()[:60] for other in words()[:60]) / 3600
    assert 0.04 < share < 0.06


def test_sentences_are_speakable() -> None:
    """Known words and numbers, no signs, no capitals, short enough for a breath."""
    for sentence in drawn(held=False):
        assert speakable(sentence)
        assert 1 <= len(sentence.split()) <= LONGEST
        assert sentence == sentence.lower().strip()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("Whats the price of 2 T-shirts", "what's the price of two t shirts"),
        ("Cancel order no. 84410", "cancel order no 84410"),
        ("I’d like it in size 42", "i'd like it in size 42"),
    ],
)
def test_normalised(typed: str, said: str) -> None:
    """Lower case, full spellings, small numbers as words, long ones as digits."""
    assert normalised(typed) == said


def test_pieces_part_sentences() -> None:
    """A message of several sentences is said one by one."""
    assert list(pieces("Hello! Where is my order? It's 84410.")) == ["hello", "where is my order", "it's 84410"]


def test_long_numbers_are_spoken_by_digits() -> None:
    """An order number comes apart, a size does not."""
    assert units("order 405 in 42") == [
        Unit("order", 0), Unit("4", 1), Unit("0", 1), Unit("5", 1), Unit("in", 2), Unit("42", 3),
    ]  # fmt: skip


def test_the_shops_own_words_are_known() -> None:
    """Every product can be asked for by the name that the shop uses."""
    from apps.demo.shop import PRODUCTS

    assert all(speakable(normalised(one.name)) for one in PRODUCTS)
