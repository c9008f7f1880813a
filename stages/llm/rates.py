"""How fast the model works off turns: measured at the start, then learned from its steps.

Time is the model's, which all sequences in a step share: a token that is chosen together with 31 others costs a 32nd of
the step. Pure; knows no model.
"""

from __future__ import annotations

from stages.llm.costs import Costs
from stages.llm.pace import MOST
from stages.llm.sequence import Sequence

SMOOTHING = 0.1
LENGTH = 64.0
"""Tokens that an answer is thought to have before any has ended."""

PROMPT_S, OUTPUT_S = 1e-4, 1e-3
"""Seconds that a token is thought to take before any was computed."""

OUTLIER = 4.0
"""A step that took more than so many times what it should says no more than that: the machine may have slept."""

LEAST_S = 1e-7
"""No token is free, or who asks for many would count as who asks for few."""


class Rates:
    """Seconds of the model's time: `prompt_s` for a token of a prompt, `output_s` for one of an answer.

    `length` is how many tokens an answer has. `most` sequences are computed together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.prompt_s = PROMPT_S
        self.output_s = OUTPUT_S
        self.length = LENGTH

    def measured(self, costs: Costs) -> None:
        """What steps cost was measured.

        Where a token more makes no difference that can be measured, it still costs its share of the largest step.
        """
        self.prompt_s = max(LEAST_S, costs.step(1, 0) / MOST, costs.token)
        self.output_s = costs.step(self._most, self._most) / self._most

    def saw(self, prompt: int, output: int, seconds: float, *, busy: bool = True) -> None:
        """A step computed so many tokens of prompts, and chose so many of answers.

        Its tokens cost more than usual where not all places were taken (not `busy`): then it tells at most that they
        cost less than was thought.
        """
        if prompt:
            rest = max(LEAST_S, seconds / MOST, (seconds - output * self.output_s) / prompt)
            self.prompt_s = _learned(self.prompt_s, rest, PROMPT_S, busy=busy)
        elif output:
            self.output_s = _learned(self.output_s, seconds / output, OUTPUT_S, busy=busy)

    def ended(self, output: int) -> None:
        """An answer has ended after so many tokens."""
        self.length += SMOOTHING * (output - self.length)

    def first(self, sequence: Sequence) -> float:
        """What it takes until the first token can be chosen, once it has a place."""
        return (sequence.pending - (0 if sequence.computed else sequence.cached)) * self.prompt_s

    def rest(self, sequence: Sequence) -> float:
        """What `sequence` will still cost, as far as anybody can know."""
        expected = min(self.length, sequence.most - sequence.start)
        return self.first(sequence) + max(1.0, expected - sequence.output) * self.output_s

    def spent(self, sequence: Sequence) -> float:
        """What `sequence` has cost."""
        computed = min(sequence.computed, sequence.start) - sequence.cached
        return max(0, computed) * self.prompt_s + sequence.output * self.output_s


def _learned(known: float, seen: float, usual: float, *, busy: bool) -> float:
    """`known`, nearer to what was `seen`."""
    if not busy and seen >= known:
        return known
    return known + SMOOTHING * (min(seen, OUTLIER * max(known, usual)) - known)
