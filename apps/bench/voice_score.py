"""What is measured of a transcript: errors by word, and when each word was shown. Knows no client and no model.

Times are seconds from the first sample of a clip, on the clock by which it was spoken.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jiwer

NORMAL = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),  # type: ignore[no-untyped-call]
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)
"""What does not count as a difference: case, punctuation, white space."""


class Shown(NamedTuple):
    """What stood on the screen from `at` on."""

    at: float
    text: str


class Heard(NamedTuple):
    """What came of one clip: all that was shown, and what was said to be final and when."""

    shown: tuple[Shown, ...]
    text: str
    final: float


class Rate(NamedTuple):
    """Words that are wrong, missing or too many, of `words` that were said; `wer` is their share."""

    words: int
    errors: int
    wer: float


def words_of(text: str) -> list[str]:
    """The words that count."""
    found: list[list[str]] = NORMAL([text])
    return found[0] if found else []


def error_rate(said: Sequence[str], heard: Sequence[str]) -> Rate:
    """The word error rate over all sentences `said`, of which there is at least one word."""
    found = jiwer.process_words(list(said), list(heard), reference_transform=NORMAL, hypothesis_transform=NORMAL)
    errors = found.substitutions + found.deletions + found.insertions
    return Rate(found.hits + found.substitutions + found.deletions, errors, found.wer)


def shown_at(heard: Heard) -> list[float]:
    """When each word of the final text stood there for good: it, and all words before it, did not change any more."""
    final = words_of(heard.text)
    moments = [*heard.shown, Shown(heard.final, heard.text)]
    lasting = len(final)
    times = [heard.final] * len(final)
    for moment in reversed(moments):
        lasting = min(lasting, _common(words_of(moment.text), final))
        times[:lasting] = [moment.at] * lasting
    return times


def _common(some: Sequence[str], others: Sequence[str]) -> int:
    """How many words both begin with."""
    pairs = zip(some, others, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))


def lags(said: str, ends: Sequence[float], heard: Heard) -> list[float]:
    """Seconds from each word's end to its standing on the screen for good, of those that were understood.

    `ends` is when each word of `said` ends.
    """
    if not words_of(said) or not words_of(heard.text):
        return []
    times = shown_at(heard)
    found = jiwer.process_words([said], [heard.text], reference_transform=NORMAL, hypothesis_transform=NORMAL)
    return [
        times[chunk.hyp_start_idx + n] - ends[chunk.ref_start_idx + n]
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def first_shown(heard: Heard) -> float | None:
    """When the first word stood on the screen, right or wrong."""
    return next((shown.at for shown in heard.shown if shown.text.strip()), None)


def taken_back(heard: Heard) -> int:
    """How many words stood on the screen and did not stay."""
    moments = [words_of(shown.text) for shown in (*heard.shown, Shown(heard.final, heard.text))]
    return sum(len(before) - _common(before, after) for before, after in pairwise(moments))
