"""Music for the training."""

import numpy as np
import pytest

from apps.demo.speech import music
from apps.demo.speech.augment import RATE


@pytest.mark.parametrize("kind", music.KINDS)
def test_music_is_sound(kind: str) -> None:
    """Of power one, finite, as long as was asked, and the same for the same seed only."""
    first, again, other = (music.KINDS[kind](np.random.default_rng(seed), 2 * RATE) for seed in (1, 1, 2))

    assert first.shape == (2 * RATE,)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.mean(first**2) == pytest.approx(1, rel=0.01)
    assert (first == again).all()
    assert (first != other).any()


def test_music_is_of_all_kinds() -> None:
    """Pieces differ: no two of twenty have spectra that are alike."""
    rng = np.random.default_rng(0)
    spectra = [np.abs(np.fft.rfft(music.piece(rng, RATE))) for _ in range(20)]
    alike = np.corrcoef(spectra) - np.eye(20)

    assert alike.max() < 0.98


def test_a_note_has_its_pitch() -> None:
    """An instrument without vibrato sounds at the pitch of the key."""
    how = music.instrument(np.random.default_rng(0))._replace(
        ratios=np.array([1.0, 2.0]), loudness=np.array([1.0, 0.2]), vibrato=(5.0, 0.0), tremolo=(5.0, 0.0), decay=5.0
    )

    sound = music.note(music.hertz(69), 1.0, how)[:RATE]

    assert int(np.abs(np.fft.rfft(sound)).argmax()) == 440
