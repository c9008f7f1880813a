"""Choose how much of a conversation to keep. Knows no tokenizer: whether something fits is asked of a function.

Where the kept part begins depends only on what stands before it, and moves in steps of `chunk` characters: so for many
turns in a row the prompt begins alike, and what the engine has cached of it stays good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.messages import Utterance

T = TypeVar("T")


def starts(talk: Sequence[Utterance], chunk: int) -> list[int]:
    """Where the kept part of `talk` may begin: at 0, then at the first user message after each `chunk` characters.

    The last user message is always among them.
    """
    begins, passed, chunks = [0], 0, 0
    for number, utterance in enumerate(talk):
        if utterance.role == "user" and passed // chunk > chunks:
            begins.append(number)
            chunks = passed // chunk
        passed += len(utterance.text)
    last = max((n for n, utterance in enumerate(talk) if utterance.role == "user"), default=0)
    return begins if begins[-1] >= last else [*begins, last]


def plausible(talk: Sequence[Utterance], begins: Sequence[int], most: int) -> list[int]:
    """Those of `begins` that leave at most `most` characters, and the last one in any case."""
    left = [sum(len(utterance.text) for utterance in talk[begin:]) for begin in begins]
    return [begin for begin, size in zip(begins[:-1], left, strict=False) if size <= most] + [begins[-1]]


def longest(begins: Sequence[int], fit: Callable[[int], T | None]) -> T | None:
    """What `fit` makes of the first of `begins` that fits; None if not even the last does.

    The first is tried at once, since most conversations fit; then the others by halving.
    """
    best = fit(begins[0])
    low, high = 1, len(begins) - 1
    while best is None and low < high:
        middle = (low + high) // 2
        if fit(begins[middle]) is None:
            low = middle + 1
        else:
            high = middle
    return best if best is not None or len(begins) == 1 else fit(begins[low])
