"""Gumbel noise as a pure function of (seed, position): the same bits on every machine.

g = -log(-log u),   u uniform in (0, 1), from SplitMix64 over a counter
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def gumbel(keys: Sequence[tuple[int, int]], tokens: Tensor) -> Tensor:
    """The noise of each (seed, position) at each of `tokens` (int64, [tokens] or [keys, tokens]), in float64."""
    signed = torch.tensor([_signed(_key(seed, position)) for seed, position in keys], device=tokens.device)
    bits = _mix_all(signed[:, None] + (tokens + 1) * _signed(_GOLDEN))
    uniform = _shift(bits, 12).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().log_().neg_()


def _key(seed: int, position: int) -> int:
    return _mix((_mix(seed & _MASK) + position * _GOLDEN) & _MASK)


def _mix(z: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014)."""
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def _mix_all(z: Tensor) -> Tensor:
    """`_mix` on int64, whose products wrap around alike; in place."""
    z ^= _shift(z, 30)
    z *= _signed(_FIRST)
    z ^= _shift(z, 27)
    z *= _signed(_SECOND)
    z ^= _shift(z, 31)
    return z


def _shift(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(z: int) -> int:
    return z - (1 << 64) if z >> 63 else z
