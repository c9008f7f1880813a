"""How fast the model works off turns: measured at the start, then learned from the steps of a busy model.

Time is the model's, which all sequences in a step share: a token that is chosen together with 31 others costs a 32nd of
the step. Pure; knows no model.
"""

from __future__ import annotations

from stages.llm.costs import Costs
from stages.llm.sequence import Sequence

SMOOTHING = 0.1
LENGTH = 64.0
"""Tokens that an answer is thought to have before any has ended."""

PROMPT_S, OUTPUT_S = 1e-4, 1e-3
"""Seconds that a token is thought to take before any was computed."""

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
        """What steps cost was measured."""
        self.prompt_s = max(costs.token, LEAST_S)
        self.output_s = costs.step(self._most, self._most) / self._most

    def saw(self, prompt: int, output: int, seconds: float) -> None:
        """A step with all places taken computed so many tokens of prompts, and chose so many of answers."""
        if prompt:
            rest = max(0.0, seconds - output * self.output_s)
            self.prompt_s = max(LEAST_S, self.prompt_s + SMOOTHING * (rest / prompt - self.prompt_s))
        elif output:
            self.output_s += SMOOTHING * (seconds / output - self.output_s)

    def ended(self, output: int) -> None:
        """An answer has ended after so many tokens."""
        self.length += SMOOTHING * (output - self.length)

    def first(self, sequence: Sequence) -> float:
        """What it takes until the first token can be chosen."""
        return sequence.pending * self.prompt_s

    def rest(self, sequence: Sequence) -> float:
        """What `sequence` will still cost, as far as anybody can know."""
        expected = min(self.length, sequence.most - sequence.start)
        return self.first(sequence) + max(1.0, expected - sequence.output) * self.output_s

    def spent(self, sequence: Sequence) -> float:
        """What `sequence` has cost."""
        computed = min(sequence.computed, sequence.start) - sequence.cached
        return max(0, computed) * self.prompt_s + sequence.output * self.output_s
