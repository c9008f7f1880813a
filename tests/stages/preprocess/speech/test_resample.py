from __future__ import annotations

import numpy as np
import pytest

from stages.preprocess.speech.resample import Resampler, Samples


def _through(sound: Samples, rate: int) -> Samples:
    block = rate // 125 * 4
    resampler = Resampler(rate, 16_000, block)
    return np.concatenate([resampler.turn(part) for part in sound.reshape(-1, block)])


def _sine(hertz: float, rate: int) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(rate * 32 // 25) / rate).astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "hertz"), [(24_000, 100), (24_000, 3_000), (24_000, 6_500), (8_000, 300), (8_000, 3_000)]
)
def test_what_is_heard_passes(rate: int, hertz: float) -> None:
    """A tone of speech comes out as the same tone, as loud as before."""
    out = _through(_sine(hertz, rate), rate)[1_000:17_000]
    spectrum = np.abs(np.fft.rfft(out)) / 8_000
    assert spectrum.argmax() == hertz
    assert spectrum.max() == pytest.approx(1.0, abs=0.01)


def test_what_the_target_cannot_hold_is_not_folded_back() -> None:
    """A tone above half the new rate leaves next to nothing."""
    for hertz in (8_300, 9_000, 11_000):
        assert np.abs(_through(_sine(hertz, 24_000), 24_000)[1_000:]).max() < 1e-3


def test_blocks_that_do_not_divide_are_refused() -> None:
    """A block must be a whole number of samples at the other rate."""
    with pytest.raises(ValueError, match="multiple of 3"):
        Resampler(24_000, 16_000, 100)
