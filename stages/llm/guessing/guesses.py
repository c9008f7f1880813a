"""What the guessing for one sequence knows and has done, and what has come of all guesses. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stages.llm.guessing.lengths import Bid
from stages.llm.guessing.luck import Common, Luck
from stages.llm.guessing.ngram import NGramIndex

Name = Literal["draft", "ngram"]

DRAFT_LUCK = 0.7
"""How often the draft model is thought to be right at first."""

AGREEMENTS = ((8, 0.8), (4, 0.6), (0, 0.35))
"""The text's guesses are better where more tokens agree before them: from so many on, and what is thought at first."""


@dataclass
class Guessed:
    """How often a drafter guessed, how many tokens, and how many of them were right: altogether, and by their place."""

    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    accepted_tokens_per_position: list[int] = field(default_factory=list)


@dataclass
class SpeculationCounts:
    """What has come of all guesses since the start, for the metrics.

    A step counts once for each sequence: in `steps` of them `tokens` came out, and `lengths[n]` had n guesses.
    """

    steps: int = 0
    tokens: int = 0
    lengths: list[int] = field(default_factory=list)
    drafters: dict[Name, Guessed] = field(default_factory=dict)

    def saw(self, length: int, tokens: int, times: int = 1) -> None:
        """So many `times` a sequence for which so far was guessed got so many `tokens` in a step."""
        self.steps += times
        self.tokens += times * tokens
        _count(self.lengths, length, times)

    def guessed(self, made: Made, right: int) -> None:
        """So many of these guesses were right."""
        guessed = self.drafters.setdefault(made.by, Guessed())
        guessed.drafts += 1
        guessed.draft_tokens += len(made.tokens)
        guessed.accepted_tokens += right
        for position in range(right):
            _count(guessed.accepted_tokens_per_position, position)


class Made(NamedTuple):
    """What was guessed in this step for a sequence, after its first `start` tokens."""

    by: Name
    luck: Luck
    tokens: list[int]
    start: int
    trial: bool = False


class Beliefs:
    """What is thought of the drafters before a sequence has tried them, and learned from all sequences."""

    def __init__(self) -> None:
        self.draft = Common(DRAFT_LUCK)
        self.ngram = [(least, Common(value)) for least, value in AGREEMENTS]


class Guesses:
    """The guessing for one sequence: its text's index, its luck, and what was guessed in this step."""

    def __init__(self, beliefs: Beliefs) -> None:
        self.index = NGramIndex()
        self.draft = Luck(beliefs.draft)
        self._ngram = [(least, Luck(common)) for least, common in beliefs.ngram]
        self.made: Made | None = None
        self.said: Made | None = None
        """What the text said, whether or not it was asked: whether it is right is known in any case."""
        self.owed = False
        """Whether the draft model reads its text for a trial, which has been paid for."""

    def ngram(self, agreed: int) -> Luck:
        """The luck of guesses before which so many tokens agree."""
        return next(luck for least, luck in self._ngram if agreed >= least)

    def age(self) -> None:
        """Somebody is to be asked again: what was known grows old."""
        for luck in (self.draft, *(luck for _, luck in self._ngram)):
            luck.age()


class Offer(NamedTuple):
    """What a drafter can do for the sequence of these `guesses`: `tokens` where they are known beforehand.

    `lag`: what the draft model has to read first. `trial`: it is asked to show what it is worth.
    """

    by: Name
    guesses: Guesses
    luck: Luck
    bid: Bid
    tokens: list[int]
    lag: int = 0
    trial: bool = False


def cut(tokens: list[int], eos: frozenset[int]) -> list[int]:
    """`tokens` up to the first that ends an answer."""
    ends = [at for at, token in enumerate(tokens) if token in eos]
    return tokens[: ends[0] + 1] if ends else tokens


def judge(made: Made, ids: Seq[int], *, ended: bool, eos: frozenset[int]) -> tuple[int, bool]:
    """How many of the guesses were right, in a row, and whether the next one was wrong; `ids` are the sequence's now.

    After its end nothing is wrong, and right at most that it ended (the token that ends it is not among `ids`).
    """
    new = ids[made.start :]
    right = 0
    for guess, token in zip(made.tokens, new, strict=False):
        if guess != token:
            return right, True
        right += 1
    if right == len(made.tokens):
        return right, False
    return right + (ended and made.tokens[right] in eos), False


def _count(numbers: list[int], at: int, times: int = 1) -> None:
    numbers.extend([0] * (at + 1 - len(numbers)))
    numbers[at] += times
