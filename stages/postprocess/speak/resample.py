"""Sound at another rate: a windowed sinc, applied as one matrix product, that delays nothing.

One second of sound takes about a millisecond, so it is done where the sound is made, off the event loop.
"""

from __future__ import annotations

from functools import cache
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

CROSSINGS = 32
"""Zero crossings of the sinc on each side."""

BETA = 7.86
"""Of the Kaiser window: what is folded back or mirrored is 80 dB lower."""

EDGE = 0.92
"""Where the filter lets half through, as a share of half the lower rate."""

FRAME = 128
"""Samples of the input that are at least turned at once."""


class Resampler:
    """Sound at `rate` samples a second as it comes, at `target` as soon as what comes next cannot change it.

    Exactly as long in the end, to the sample; the n-th sample out is the sound at the time of the n-th.
    """

    def __init__(self, rate: int, target: int) -> None:
        common = gcd(rate, target)
        repeats = ceil(FRAME * common / rate)
        self._up, self._down = repeats * target // common, repeats * rate // common
        self._weights = _weights(self._up, self._down)
        self._reach = (len(self._weights) - self._down) // 2
        self._waiting = np.zeros(self._reach, np.float32)
        self._taken = self._given = 0

    def feed(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """What has become certain with `samples`."""
        self._taken += len(samples)
        return self._turn(samples.astype(np.float32))

    def finish(self) -> NDArray[np.int16]:
        """What is left: after the last sample there is silence."""
        left = -(-self._taken * self._up // self._down) - self._given
        return self._turn(np.zeros(2 * (self._reach + self._down), np.float32))[:left]

    def _turn(self, samples: NDArray[np.float32]) -> NDArray[np.int16]:
        sound = np.concatenate((self._waiting, samples))
        frames = max(0, (len(sound) - 2 * self._reach) // self._down)
        self._waiting = sound[frames * self._down :]
        if not frames:
            return np.zeros(0, np.int16)
        windows = np.lib.stride_tricks.sliding_window_view(sound, len(self._weights))[:: self._down][:frames]
        turned = (np.ascontiguousarray(windows) @ self._weights).reshape(-1)
        self._given += len(turned)
        whole: NDArray[np.int16] = np.clip(np.rint(turned), -32768, 32767).astype(np.int16)
        return whole


def resample(samples: NDArray[np.int16], rate: int, target: int) -> NDArray[np.int16]:
    """All of a sound at once."""
    if rate == target:
        return samples
    resampler = Resampler(rate, target)
    return np.concatenate((resampler.feed(samples), resampler.finish()))


@cache
def _weights(up: int, down: int) -> NDArray[np.float32]:
    """(reach + down + reach, up): how much of each sample of a frame, and around it, is in each that comes out.

    h(t) = e·sinc(e·t)·kaiser(t / reach), t in samples of the input; each column adds up to 1.
    """
    edge = EDGE * min(1.0, up / down)
    reach = ceil(CROSSINGS / edge)
    times = np.arange(-reach, down + reach)[:, None] - np.arange(up)[None, :] * (down / up)
    window = np.i0(BETA * np.sqrt(np.clip(1 - (times / reach) ** 2, 0, None))) * (np.abs(times) <= reach)
    weights = np.sinc(edge * times) * window
    normal: NDArray[np.float32] = (weights / weights.sum(axis=0)).astype(np.float32)
    return normal
