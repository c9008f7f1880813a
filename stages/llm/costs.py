"""What a step costs, measured at start-up, and how far ahead it pays to guess.

With luck a (how often a guess is right), guessing n ahead gives 1 + a + … + a^n tokens a step, and costs n steps of the
draft and one of the model with n + 1 tokens for each sequence.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from pipeline.messages import Prompt
from stages.llm.forward import Work, forward
from stages.llm.model import LoadedModel
from stages.llm.sequence import Sequence

PATIENCE_S = 0.2
"""How long to measure one point; it is measured at least twice."""

WIDE, DEEP = 16, 5
"""Sequences, and tokens of each, in the larger steps that are measured."""


@dataclass(frozen=True)
class Costs:
    """Seconds of a step: `base`, `sequence` for each sequence in it, `token` for each token."""

    base: float
    sequence: float
    token: float

    def step(self, sequences: int, tokens: int) -> float:
        """Seconds of a step of so many sequences with so many tokens altogether."""
        return self.base + sequences * self.sequence + tokens * self.token


def measure(model: LoadedModel, patience_s: float = PATIENCE_S) -> Costs:
    """Time a few steps of `model`, each kind for `patience_s`."""
    small, wide, deep = (_time(model, *shape, patience_s) for shape in ((1, 1), (WIDE, 1), (WIDE, DEEP)))
    token = max(0.0, deep - wide) / (WIDE * (DEEP - 1))
    sequence = max(0.0, (wide - small) / (WIDE - 1) - token)
    return Costs(max(small - sequence - token, 1e-9), sequence, token)


def prompt_token(model: LoadedModel, tokens: int) -> float:
    """Seconds that one more token takes in a prompt of so many, measured in a few steps, for somebody may wait."""
    tokens = min(tokens, model.context)
    return max(0.0, _time(model, 1, tokens, 0) - _time(model, 1, 1, 0)) / max(1, tokens - 1)


def best_length(lucks: Seq[float], model: Costs, draft: Costs, *, most: int) -> int:
    """How many tokens to guess for each of the sequences with these `lucks`: 0 to `most`, most tokens a second."""
    count = len(lucks)

    def speed(ahead: int) -> float:
        tokens = sum(sum(luck**n for n in range(ahead + 1)) for luck in lucks)
        return tokens / (ahead * draft.step(count, count) + model.step(count, count * (ahead + 1)))

    return max(range(most + 1), key=speed)


def _time(model: LoadedModel, sequences: int, tokens: int, patience_s: float = PATIENCE_S) -> float:
    prompt = Prompt("", "", tuple(number % model.tokens for number in range(tokens)))
    best, spent, rounds = float("inf"), 0.0, 0
    while rounds < 2 or spent < patience_s:
        works = [Work(Sequence(n, prompt, model.vocabulary, context=10**9), tokens) for n in range(sequences)]
        began = time.perf_counter()
        forward(model, works)
        took = time.perf_counter() - began
        best, spent, rounds = min(best, took), spent + took, rounds + 1
    return best
