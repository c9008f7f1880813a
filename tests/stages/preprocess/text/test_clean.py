"""Text is cleaned of what nobody typed on purpose, and of nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.preprocess.text.clean import clean

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
