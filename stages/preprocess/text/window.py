"""Choose how much of a conversation to keep. Knows no tokenizer: it is given a function that encodes.

Where the kept part begins depends only on what stands before it, and moves in steps of `chunk` characters: so for many
turns in a row the prompt begins alike, and what the engine has cached of it stays good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from pipeline.messages import Utterance

T = TypeVar("T", bound=Sized)


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


def left(kept: Callable[[int], Sequence[Utterance]], begins: Sequence[int]) -> list[int]:
    """How many characters are in what is `kept` from each of `begins` on."""
    return [sum(len(utterance.text) for utterance in kept(begin)) for begin in begins]


def longest(sizes: Sequence[int], limit: int, encode: Callable[[int], T]) -> T:
    """The first of the places to begin from which at most `limit` tokens are kept, encoded; else the last one.

    `sizes` are what `left` says, and `encode` encodes from the place of that number on. All are tried in effect, few
    in fact: the first tells how many tokens a character makes, so the search begins near its end.
    """
    kept = encode(0)
    if len(kept) <= limit or len(sizes) == 1:
        return kept
    rate = len(kept) / max(1, sizes[0])
    at = next((n for n, size in enumerate(sizes) if n and size * rate <= limit), len(sizes) - 1)
    kept = encode(at)
    if len(kept) <= limit:
        while at > 1 and len(earlier := encode(at - 1)) <= limit:
            at, kept = at - 1, earlier
        return kept
    for later in range(at + 1, len(sizes)):
        kept = encode(later)
        if len(kept) <= limit:
            break
    return kept
