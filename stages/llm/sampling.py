"""From logits to a token, as a pure function of the logits, the seed and the position.

    token(position) = argmax(logits / T + g(seed, position)),   g = -log(-log u),   u uniform in (0, 1)

The argmax of logits plus independent Gumbel noise is distributed as softmax(logits / T) (Gumbel, 1954). Since the noise
is a function of (seed, position), an answer does not depend on the batch, on where it was taken up again, or on what a
draft proposed. T = 0 drops the noise. u comes from SplitMix64 over a counter: the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Choice(NamedTuple):
    """How to choose the token at `position` of a sequence (the prompt counted)."""

    seed: int
    position: int
    temperature: float
    top_p: float


def sample(logits: Tensor, choices: Sequence[Choice]) -> list[int]:
    """One token id for each row of `logits` ([rows, vocabulary]); rows beyond `choices` are padding."""
    if not choices:
        return []
    tokens = logits[: len(choices)].argmax(-1)
    drawn = [row for row, choice in enumerate(choices) if choice.temperature > 0]
    if drawn:
        tokens[drawn] = _draw(logits[drawn], [choices[row] for row in drawn])
    return [int(token) for token in tokens.tolist()]


def _draw(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    temperatures = logits.new_tensor([choice.temperature for choice in choices], dtype=torch.float64)
    scores = logits.double() / temperatures[:, None]
    for row, choice in enumerate(choices):
        if choice.top_p < 1:
            scores[row] = nucleus(scores[row], choice.top_p)
    return (scores + gumbel(choices, logits.shape[1], logits.device)).argmax(-1)


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """`scores` ([vocabulary]) with minus infinity outside the smallest set of tokens that has probability `top_p`."""
    ordered, order = scores.sort(descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return scores.index_fill(0, order[before >= top_p], float("-inf"))


def gumbel(choices: Sequence[Choice], vocabulary: int, device: torch.device) -> Tensor:
    """The noise of each choice's (seed, position), [choices, vocabulary], in float64."""
    keys = torch.tensor([_signed(_key(choice.seed, choice.position)) for choice in choices], device=device)
    counter = torch.arange(1, vocabulary + 1, device=device) * _signed(_GOLDEN)
    bits = _mix_all(keys[:, None] + counter)
    uniform = (_shift(bits, 12).double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform))


def _key(seed: int, position: int) -> int:
    return _mix((_mix(seed & _MASK) + position * _GOLDEN) & _MASK)


def _mix(z: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014)."""
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def _mix_all(z: Tensor) -> Tensor:
    """`_mix` on int64, whose products wrap around alike."""
    z = (z ^ _shift(z, 30)) * _signed(_FIRST)
    z = (z ^ _shift(z, 27)) * _signed(_SECOND)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(z: int) -> int:
    return z - (1 << 64) if z >> 63 else z
