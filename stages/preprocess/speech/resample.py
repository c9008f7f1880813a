"""Sound at another rate: a polyphase FIR filter, block by block, so that it does not matter how the sound was cut."""

from __future__ import annotations

from functools import cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

WIDTH = 96
"""Taps of each phase: 96 let pass what is below 6.9 kHz of sound at 24 kHz, and stop 80 dB of what is above 8 kHz."""

BETA = 7.86
"""Of the Kaiser window: 80 dB of attenuation."""


class Resampler:
    """From `rate` to `target` samples a second, in blocks of `block` samples.

    A fixed number of them, so that the same sums are made in the same order whatever the pieces. What comes out is
    later by half the filter, about 2 ms.
    """

    def __init__(self, rate: int, target: int, block: int) -> None:
        common = gcd(rate, target)
        self._up, self._down = target // common, rate // common
        if block % self._down:
            raise ValueError(f"a block of {block} samples is not a multiple of {self._down}")
        self._taps = _taps(self._up, self._down)
        self._before: Samples = np.zeros(WIDTH - 1, np.float32)

    def turn(self, block: Samples) -> Samples:
        """The next block at the other rate: (block,) → (block · target / rate,)."""
        sound = np.concatenate((self._before, block))
        self._before = sound[len(block) :]
        windows = np.lib.stride_tricks.sliding_window_view(sound, WIDTH)
        out = np.empty((len(block) // self._down, self._up), np.float32)
        for place in range(self._up):
            first, phase = divmod(place * self._down, self._up)
            out[:, place] = windows[first :: self._down] @ self._taps[phase]
        return out.reshape(-1)


@cache
def _taps(up: int, down: int) -> NDArray[np.float32]:
    """The low-pass filter for `up`/`down`, in phases: (up, WIDTH), each turned round for a product with the past.

    A sinc under a Kaiser window; its edge is .47 of the lower rate, so that next to nothing is folded back.
    """
    edge = 0.925 / max(up, down)
    count = WIDTH * up
    time = np.arange(count) - (count - 1) / 2
    taps = edge * np.sinc(edge * time) * np.kaiser(count, BETA)
    taps *= up / taps.sum()
    return np.ascontiguousarray(taps.reshape(WIDTH, up).T[:, ::-1], np.float32)
