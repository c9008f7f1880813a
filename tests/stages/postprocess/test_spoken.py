"""What is said of a written text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.postprocess.spoken import speakable, spoken, words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**Hello** _there_, ~~old~~ *friend*!", "Hello there, old friend!"),
        ("`snake_case` and __init__", "snake case and init"),
        ("## Heading", "Heading"),
        ("> quoted\n- [x] item\n* other", "quoted\nitem\nother"),
        ("| a | b |\n|---|:-:|\n---", ",  a ,  b , \n\n"),
        ("See [the docs](https://x.org/a_(b)?c=1) now", "See the docs now"),
        ("![a cat](cat.png)", "a cat"),
        ("Go to https://www.example.com:80/a/b?c=d.", "Go to example dot com."),
        ("(www.docs.example.org/x)", "(docs dot example dot org)"),
        ("<https://x.org/abc> or <b>bold</b>", "x dot org or bold"),
        ("mail joe.doe@example.com!", "mail joe dot doe at example dot com!"),
        ("3–5 days, 2*3 is 2 * 3", "3 to 5 days, 2 times 3 is 2 times 3"),
        ("this — or – that - is", "this, or, that, is"),
        ("5 - 3 < 4 > 1, well-known", "5 - 3 < 4 > 1, well-known"),
        ("Hi 😀👍🏽 👩‍👩‍👧 🇩🇪!", "Hi   !"),
        ("1️⃣ 20°C, ½ €5 & 10 %", "1 20°C, ½ €5 & 10 %"),
        ("left → right", "left , right"),
        ("Order 73111753, or 12345.", "Order 7 3 1 1 1 7 5 3 , or 1 2 3 4 5 ."),
        ("2026: 50000 of 1234567.89 or $12345, 12345%", "2026: 50000 of 1234567.89 or $12345, 12345%"),
        ("你好，世界。", "你好，世界。"),
        ("naïve café", "naïve café"),
    ],
)
def test_what_is_said(text: str, said: str) -> None:
    """Markup, pictures and the ends of addresses are not said; the words are."""
    assert spoken(text).text == said


def test_places_lead_back_to_the_text() -> None:
    """Each character that is said knows where it stands; one that is said instead of another knows that one's place."""
    text = "**Go** to https://x.org/a, [now](https://y.org)!"

    said = spoken(text)

    assert [text[said.places[said.text.index(word)]] for word in ("Go", "to", "x dot", "now", "!")] == list("Gthn!")
    assert said.places[said.text.index("dot")] == text.index("https")


@given(st.text(st.sampled_from("ab 1.,-*_`|[]()<>/#\n😀—@:hwtps"), max_size=60))
def test_places_rise(text: str) -> None:
    """Whatever the text, each character said has a place in it, and later ones have none before it."""
    said = spoken(text)

    assert len(said.text) == len(said.places)
    assert list(said.places) == sorted(said.places)
    assert all(0 <= place < len(text) for place in said.places)


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("...", 0), ("😀 ---", 0), ("Hi, 42 there", 3), ("**a** [b](c)", 2)]
)
def test_words_are_counted_as_said(text: str, count: int) -> None:
    """Only what is said counts as words; without one there is nothing to speak."""
    assert words(text) == count
    assert speakable(text) == (count > 0)
