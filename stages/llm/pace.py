"""How many tokens a step may compute, so that a long prompt does not make running answers stutter."""

from __future__ import annotations

SMOOTHING = 0.2

MOST = 512
"""Tokens of prompts in the largest step."""


class Pace:
    """Learns what a token costs from the steps it `saw`.

    Args:
        target_s: How long a step should take at most while answers are streaming.
        least: Tokens of prompts that a step computes in any case, or they would never begin.
        most: Tokens of prompts in a step when nothing else is waiting for it.
    """

    def __init__(self, *, target_s: float = 0.025, least: int = 32, most: int = MOST) -> None:
        self._target_s, self._least, self._most = target_s, least, most
        self._token_s = target_s / 256

    def saw(self, tokens: int, seconds: float) -> None:
        """A step computed `tokens` in `seconds`. Small steps say little about the cost of a token."""
        if tokens >= self._least:
            self._token_s += SMOOTHING * (seconds / tokens - self._token_s)

    def budget(self, *, streaming: bool) -> int:
        """Tokens of prompts for the next step."""
        if not streaming:
            return self._most
        return max(self._least, min(self._most, int(self._target_s / self._token_s)))
