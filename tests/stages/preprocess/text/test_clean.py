"""Text is cleaned of what nobody typed on purpose, and of nothing else."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.preprocess.text.clean import MOST_MARKS, clean

ANY = st.text(st.characters(), max_size=40)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cafe\u0301", "café"),
        ("\ufeffhello", "hello"),
        ("a\x00b\x07c\x1b[31md\x9f", "abc[31md"),
        ("a\u200bb\u2060c\u00add", "abcd"),
        ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("a\ud800b\udfff", "ab"),
        ("\u202eevil", "evil"),
        ("hi\U000e0049\U000e0067\U000e006e", "hi"),
        ("\U000e0041", ""),
    ],
)
def test_rubbish_goes(text: str, cleaned: str) -> None:
    """Broken, invisible and deceiving characters go; characters in parts become whole."""
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "👩‍👩‍👧",
        "👍🏽",
        "❤️",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",
        "क्\u200dष",
        "\tif a:\n\t\tb",
        "שלום\u200f!",
        "日本語",
        "a  b",
    ],
)
def test_what_has_a_use_stays(text: str) -> None:
    """Emoji made of several, flags, joiners of other scripts, tabs, line ends and blanks stay as they are."""
    assert clean(text) == text


@given(text=ANY)
def test_cleaning_is_done_once(text: str) -> None:
    """What is clean stays as it is, can be sent as UTF-8, and is in NFC."""
    cleaned = clean(text)

    assert clean(cleaned) == cleaned
    assert cleaned.encode().decode() == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)


MARKS = [chr(n) for n in range(sys.maxunicode + 1) if unicodedata.combining(unicodedata.normalize("NFD", chr(n))[0])]
"""All of them, those too that are one only when taken apart (U+0F73)."""


def most_marks(text: str) -> int:
    """The length of the longest run of marks in `text`."""
    longest = run = 0
    for character in text:
        run = run + 1 if character in MARKS else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("marks", ["\u0345\u0315\u0327\u0334", "\u0f73\u0f71", "\u0344\u0327"], ids=ascii)
def test_heaps_of_marks_cost_no_time(marks: str) -> None:
    """A text full of marks on one letter, in whatever order, is cleaned at once; what stays is a few of them."""
    text = "a" + "".join(mark * (32_000 // len(marks)) for mark in marks)
    began = time.process_time()

    cleaned = clean(text)

    assert time.process_time() - began < 1
    assert most_marks(cleaned) == MOST_MARKS
    assert len(cleaned) <= MOST_MARKS + 1


def test_no_mark_counts_as_a_letter() -> None:
    """Whichever mark a heap is made of, it is cut, and the letter after it stays."""
    for mark in MARKS:
        assert len(clean(f"x{mark * 100}y")) <= MOST_MARKS + 2
        assert clean(f"x{mark * 100}y")[-1] == "y"


HEAPS = st.lists(
    st.tuples(st.sampled_from("aeo\u1ea1\u01d8"), st.text(st.sampled_from(MARKS), max_size=60)), max_size=4
)


@given(heaps=HEAPS)
def test_heaps_are_cleaned_once(heaps: list[tuple[str, str]]) -> None:
    """What is left of a heap stays as it is, in NFC, and letters with as many marks as people write lose none."""
    text = "".join(letter + marks for letter, marks in heaps)

    cleaned = clean(text)

    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert most_marks(cleaned) <= MOST_MARKS
    if most_marks(text) <= MOST_MARKS // 2:
        assert cleaned == unicodedata.normalize("NFC", text)
