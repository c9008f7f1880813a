"""Sound at another rate is the same sound, as long, and at the same time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.postprocess.speak.resample import Resampler, resample

RATES = [(22_050, 24_000), (24_000, 8_000), (16_000, 24_000), (48_000, 24_000), (44_100, 24_000)]


def tone(hertz: float, rate: int, seconds: float = 1.0) -> NDArray[np.int16]:
    """A tone at half the full scale."""
    time = np.arange(round(seconds * rate)) / rate
    wave: NDArray[np.int16] = np.rint(16_000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
    return wave


def level(samples: NDArray[np.int16]) -> float:
    """The power of the middle of a sound against that of a tone, in decibels."""
    middle = samples[len(samples) // 10 : -len(samples) // 10].astype(float)
    return float(10 * np.log10(np.mean(middle**2) / (16_000**2 / 2) + 1e-12))


@pytest.mark.parametrize(("rate", "target"), RATES)
def test_tones_come_through_as_they_were(rate: int, target: int) -> None:
    """What both rates can hold is the same, in level and in time, down to -60 dB."""
    for hertz in (100, 1_000, 0.38 * min(rate, target)):
        error = resample(tone(hertz, rate), rate, target).astype(int) - tone(hertz, target)

        assert level(error.astype(np.int16)) < -60


@pytest.mark.parametrize(("rate", "target"), RATES)
def test_what_the_lower_rate_cannot_hold_is_gone(rate: int, target: int) -> None:
    """Nothing is folded back from above half the new rate, and nothing mirrored above half the old one."""
    if target < rate:
        assert level(resample(tone(0.53 * target, rate), rate, target)) < -70
    else:
        spectrum = np.abs(np.fft.rfft(resample(tone(0.4 * rate, rate), rate, target) * np.hanning(target)))
        beyond = int(0.53 * rate)
        assert spectrum[beyond:].max(initial=0) < spectrum.max() / 3_000


@pytest.mark.parametrize(("rate", "target"), RATES)
@pytest.mark.parametrize("count", [0, 1, 7, 1_000, 12_345])
def test_length_is_exact(rate: int, target: int, count: int) -> None:
    """A sound lasts as long as before, to the sample, rounded up."""
    assert len(resample(np.ones(count, np.int16), rate, target)) == -(-count * target // rate)


@pytest.mark.parametrize(("rate", "target"), RATES)
def test_pieces_make_the_same_sound(rate: int, target: int) -> None:
    """In whatever pieces the sound comes, the same comes out, and most of it at once."""
    sound = tone(300, rate)
    resampler = Resampler(rate, target)
    rng = np.random.default_rng(1)
    pieces, at = [], 0
    while at < len(sound):
        size = int(rng.integers(0, 3_000))
        pieces.append(resampler.feed(sound[at : at + size]))
        at += size
        assert sum(map(len, pieces)) > min(at, len(sound)) * target / rate - 0.03 * target
    pieces.append(resampler.finish())

    assert np.abs(np.concatenate(pieces).astype(int) - resample(sound, rate, target)).max() <= 1


def test_loud_sound_is_not_turned_round() -> None:
    """What overshoots the full scale is cut there."""
    square = np.where(tone(50, 22_050) > 0, 32_767, -32_768).astype(np.int16)
    turned = resample(square, 22_050, 24_000)

    assert turned.max() == 32_767
    assert turned.min() == -32_768
    assert (np.sign(turned[100:200]) == 1).all()


def test_same_rate_is_the_same_sound() -> None:
    """There is nothing to do then."""
    assert resample(tone(440, 24_000), 24_000, 24_000).tolist() == tone(440, 24_000).tolist()
