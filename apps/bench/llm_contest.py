"""A contest of programs that continue prompts: the same prompts and number of tokens for each, in alternating turns.

Knows no model: a `Contestant` is whatever answers prompts and says when its tokens came.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Literal, NamedTuple, Protocol

from apps.bench.report import Spread, spread

Ids = tuple[int, ...]
Serves = Literal["continuous batch", "padded batch", "one after another"]
"""What becomes of several prompts at once."""

WARM_TOKENS = 16


class Chunk(NamedTuple):
    """`ids` that came together, `at` seconds after their request."""

    at: float
    ids: Ids


class Speculated(NamedTuple):
    """Tokens that were guessed, how many of them were right, and the steps (0: a chunk is a step)."""

    guessed: int = 0
    right: int = 0
    steps: int = 0


class Difference(NamedTuple):
    """In the answer of that `number`, at its token `at`, `other` was said where `token` was expected."""

    number: int
    at: int
    token: int
    other: int


Answer = list[Chunk]


class Contestant(Protocol):
    """Something that continues prompts greedily."""

    @property
    def name(self) -> str:
        """As it is told in tables."""
        ...

    @property
    def serves(self) -> Serves:
        """What it does with several prompts at once."""
        ...

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """Continue `prompts`, all of which are asked at the call's start, by `tokens` tokens each."""
        ...

    def speculated(self) -> Speculated | None:
        """Since its start; None: it does not guess, or does not tell."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...


class Round(NamedTuple):
    """What a contestant did in one round: its answers in the prompts' order, and the seconds it took altogether."""

    answers: list[Answer]
    seconds: float
    speculated: Speculated | None

    @property
    def tokens_per_s(self) -> float:
        """Over all streams."""
        return sum(len(chunk.ids) for answer in self.answers for chunk in answer) / self.seconds


Rounds = Mapping[str, list[Round]]
"""Each contestant's, in the order in which they were played."""


def play(contestant: Contestant, prompts: Sequence[Ids], tokens: int, streams: int) -> Round:
    """Let `contestant` answer `prompts`, `streams` at once."""
    before = contestant.speculated()
    answers: list[Answer] = []
    began = time.perf_counter()
    for at in range(0, len(prompts), streams):
        answers += contestant.answer(prompts[at : at + streams], tokens)
    seconds = time.perf_counter() - began
    after = contestant.speculated()
    if before is None or after is None:
        return Round(answers, seconds, None)
    return Round(answers, seconds, Speculated(*(last - first for first, last in zip(before, after, strict=True))))


def contest(
    contestants: Sequence[Contestant],
    prompts: Sequence[Sequence[Ids]],
    *,
    warm: Sequence[Ids],
    tokens: int,
    streams: int,
    step: Callable[[], None] = lambda: None,
) -> Rounds:
    """One round for each of `prompts`; who begins changes from round to round. First all answer `warm`, uncounted."""
    for contestant in contestants:
        play(contestant, warm, min(WARM_TOKENS, tokens), streams)
    rounds: dict[str, list[Round]] = {contestant.name: [] for contestant in contestants}
    for number, asked in enumerate(prompts):
        first = number % len(contestants)
        gc.collect()  # what one leaves behind is not another's to clear away
        for contestant in [*contestants[first:], *contestants[:first]]:
            rounds[contestant.name].append(play(contestant, asked, tokens, streams))
            step()
    return rounds


class Middle(NamedTuple):
    """A median and what it lies between."""

    median: float
    least: float
    most: float


def middle(values: Iterable[float]) -> Middle:
    """The middle of `values`, of which there is at least one."""
    known = list(values)
    return Middle(median(known), min(known), max(known))


class Figures(NamedTuple):
    """What a contestant's rounds come to, times in milliseconds.

    `between` is from token to token, where those of a chunk share the time since the chunk before; `gaps` is from chunk
    to chunk; both and `tokens_per_step`, all after the first chunk, are None where every answer came at once. `equal`
    answers of all are those of the contestant that is compared with, token for token.
    """

    tokens_per_s: Middle
    first: Spread
    between: Spread | None
    gaps: Spread | None
    tokens_per_step: float | None
    acceptance: float | None
    equal: int

    def result(self) -> dict[str, Any]:
        """For a machine to read."""
        return {
            name: value._asdict() if isinstance(value, (Middle, Spread)) else value
            for name, value in self._asdict().items()
        }


def figures(rounds: Sequence[Round], reference: Sequence[Round]) -> Figures:
    """The figures of a contestant's `rounds`, the answers compared with those in `reference`."""
    answers = [answer for one in rounds for answer in one.answers]
    gaps = [(then.at - chunk.at, len(then.ids)) for answer in answers for chunk, then in pairwise(answer)]
    guesses = [one.speculated for one in rounds if one.speculated is not None]
    guessed, right = sum(one.guessed for one in guesses), sum(one.right for one in guesses)
    later = [chunk for answer in answers for chunk in answer[1:]]
    steps = sum(one.steps for one in guesses) or len(later)
    expected = [answer for one in reference for answer in one.answers]
    return Figures(
        tokens_per_s=middle(one.tokens_per_s for one in rounds),
        first=spread(1000 * answer[0].at for answer in answers),
        between=spread(1000 * seconds / tokens for seconds, tokens in gaps for _ in range(tokens)) if gaps else None,
        gaps=spread(1000 * seconds for seconds, _ in gaps) if gaps else None,
        tokens_per_step=sum(len(chunk.ids) for chunk in later) / steps if later else None,
        acceptance=right / guessed if guessed else None,
        equal=sum(tokens_of(one) == tokens_of(other) for one, other in zip(answers, expected, strict=True)),
    )


def differences(rounds: Sequence[Round], reference: Sequence[Round]) -> list[Difference]:
    """Where answers first differ from those in `reference`."""
    answers = [tokens_of(answer) for one in rounds for answer in one.answers]
    expected = [tokens_of(answer) for one in reference for answer in one.answers]
    found = []
    for number, both in enumerate(zip(answers, expected, strict=True)):
        places = [at for at, (one, other) in enumerate(zip(*both, strict=False)) if one != other]
        if places:
            found.append(Difference(number, places[0], both[1][places[0]], both[0][places[0]]))
    return found


def tokens_of(answer: Answer) -> Ids:
    """All tokens of `answer`."""
    return tuple(token for chunk in answer for token in chunk.ids)


def ratio(ours: Sequence[Round], others: Sequence[Round]) -> Middle:
    """Tokens a second of `ours` over those of `others`, round by round."""
    return middle(one.tokens_per_s / other.tokens_per_s for one, other in zip(ours, others, strict=True))
