"""Word errors, and when words were shown."""

from __future__ import annotations

import pytest

from apps.bench.voice_score import Heard, Shown, error_rate, first_shown, lags, shown_at, taken_back


def heard(final: float, text: str, **shown: str) -> Heard:
    """What was shown, by tenths of seconds (`t5` is half a second), and the final text."""
    return Heard(tuple(Shown(int(name[1:]) / 10, one) for name, one in shown.items()), text, final)


def test_errors_are_counted_over_all_sentences() -> None:
    """Wrong, missing and additional words, of all that were said; case, commas and spaces are none."""
    said = ["how much is a tent", "thank you"]
    assert error_rate(said, ["How much,  is a tent?", "thank you"]) == (7, 0, 0.0)
    assert error_rate(said, ["how much is tent", "oh thank you"]) == (7, 2, 2 / 7)
    assert error_rate(said, ["", ""]) == (7, 7, 1.0)


def test_a_word_is_shown_when_it_does_not_change_any_more() -> None:
    """Neither it nor any word before it."""
    one = heard(2.0, "how much is it", t5="how", t8="how mush is", t10="how much is")
    assert shown_at(one) == [0.5, 1.0, 1.0, 2.0]
    assert taken_back(one) == 2


def test_what_was_shown_at_the_end_alone_was_shown_then() -> None:
    """And what changed at the end, too."""
    assert shown_at(heard(2.0, "how much")) == [2.0, 2.0]
    assert shown_at(heard(2.0, "how much", t5="who much")) == [2.0, 2.0]
    assert shown_at(heard(2.0, "", t5="who")) == []


def test_lags_count_from_the_ends_of_the_words_that_were_understood() -> None:
    """What was misheard or made up has no end to count from."""
    one = heard(2.0, "oh how mush is it", t5="oh how", t10="oh how mush is")
    assert lags("how much is it", [0.25, 0.5, 0.75, 1.0], one) == pytest.approx([0.25, 0.25, 1.0])
    assert lags("how much", [0.25, 0.5], heard(1.0, "")) == []


def test_the_first_word_counts_also_if_it_is_wrong() -> None:
    """That is when the speaker sees that he is heard; blanks are no words."""
    assert first_shown(heard(2.0, "how", t3=" ", t5="who")) == 0.5
    assert first_shown(heard(2.0, "how")) is None
