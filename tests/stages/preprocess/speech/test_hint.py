from __future__ import annotations

import random

import pytest

from apps.demo.speech.texts import sentences
from stages.preprocess.speech.hint import Ending, ending, soonest_ms, wait_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "unclear"),
        ("Yes.", "finished"),
        ("What time is it?", "finished"),
        ("Well,", "unfinished"),
        ("I would like...", "unfinished"),
        ("i would like two coffees and", "unfinished"),
        ("i would like to", "unfinished"),
        ("can i have a", "unfinished"),
        ("um", "unfinished"),
        ("my order is", "unfinished"),
        ("i want", "unfinished"),
        ("i would like two coffees", "finished"),
        ("what time do you open", "finished"),
        ("do you deliver", "unclear"),
        ("do you deliver to my house", "finished"),
        ("what colour is it available in", "unclear"),
        ("how long does delivery take", "finished"),
        ("ok and what colours do you have", "finished"),
        ("what can you do", "finished"),
        ("where are you", "unclear"),
        ("what is", "unfinished"),
        ("can you tell me what you have", "unfinished"),
        ("yes", "finished"),
        ("two coffees please", "finished"),
        ("no thank you", "finished"),
        ("show me the menu", "finished"),
        ("that's all", "finished"),
        ("maria", "unclear"),
        ("two coffees", "unclear"),
        ("it’s raining outside", "finished"),
    ],
)
def test_english_without_punctuation(text: str, expected: Ending) -> None:
    """The last word tells whether another must come, and the first ones whether it is a sentence."""
    assert ending(text) == expected


def test_other_languages_are_told_by_their_punctuation_alone() -> None:
    """What is not English is unclear unless an end mark, or a comma, says more."""
    assert ending("ich möchte zwei kaffee und", "de") == "unclear"
    assert ending("Ich möchte zwei Kaffee.", "de") == "finished"
    assert ending("两杯咖啡。", "zh") == "finished"


def test_the_more_eager_the_shorter() -> None:
    """At most 8, 4 and 2 seconds, and less the clearer it is that all was said."""
    waits = {
        eagerness: [wait_ms(eagerness, text) for text in ("i want", "maria", "yes")]
        for eagerness in ("low", "medium", "high")
    }
    assert [wait[0] for wait in waits.values()] == [8000, 4000, 2000]
    assert all(wait == sorted(wait, reverse=True) for wait in waits.values())
    assert [wait[2] for wait in waits.values()] == [soonest_ms(eagerness) for eagerness in ("low", "medium", "high")]


@pytest.mark.slow
def test_what_customers_say() -> None:
    """Few whole sentences seem unfinished, and most beginnings of one do not seem whole."""
    heard = sentences(random.Random(5), held=True)
    whole = list(dict.fromkeys(next(heard) for _ in range(300)))
    cut = [" ".join(words[:n]) for words in map(str.split, whole) for n in range(1, len(words))]
    assert sum(ending(text) == "finished" for text in whole) / len(whole) > 0.6
    assert sum(ending(text) == "unfinished" for text in whole) / len(whole) < 0.1
    assert sum(ending(text) == "finished" for text in cut) / len(cut) < 0.3
