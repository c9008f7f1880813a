"""What happens to a voice on its way."""

import numpy as np
import pytest
import torch
from torch import Tensor

from apps.demo.speech import augment
from apps.demo.speech.augment import RATE


def tone(pitch: float, seconds: float = 0.5) -> Tensor:
    """One clip with a sine at half of full scale."""
    return 0.5 * torch.sin(2 * torch.pi * pitch * torch.arange(int(seconds * RATE)) / RATE)[None]


def level(wave: Tensor) -> float:
    """The mean power's root, without the ends."""
    return float(wave[0, 800:-800].square().mean().sqrt())


@pytest.mark.parametrize(("pitch", "heard"), [(1000, True), (2500, True), (5000, False), (7000, False)])
def test_a_telephone_has_its_band(pitch: float, heard: bool) -> None:
    """What lies in the band comes through at its level with a little noise; above 4 kHz nothing does."""
    found = augment.through_telephone(tone(pitch), np.random.default_rng(0))

    assert found.shape == (1, RATE // 2)
    assert level(found) == pytest.approx(level(tone(pitch)) if heard else 0, abs=0.02)
    if heard:
        assert 0.0001 < level(found - tone(pitch)) < 0.05


def test_a_room_has_a_tail() -> None:
    """A click is heard where it was, and fades after it."""
    click = torch.zeros(1, 8000)
    click[0, 1000] = 1

    found = augment.through_room(click, np.random.default_rng(0))[0]

    assert int(found.abs().argmax()) == 1000
    assert found[:1000].abs().max() < 1e-4
    assert found[1050:3000].square().sum() > found[4000:].square().sum() > 0


def test_noises_have_power_one() -> None:
    """All kinds of noise are equally loud and finite, and the same for the same seed."""
    rng = np.random.default_rng(0)
    for name, make in augment.KINDS.items():
        sound = make(rng, RATE)
        assert np.isfinite(sound).all(), name
        assert np.mean(sound**2) == pytest.approx(1, rel=0.01), name


def test_what_comes_out_is_sound() -> None:
    """Augmented clips are sixteen-bit samples within full scale; silence gets noise where it is to have some."""
    rng, noises = np.random.default_rng(0), torch.randn(2, 4 * RATE)
    waves = torch.cat([tone(440).repeat(15, 1), torch.zeros(5, RATE // 2)])

    found = augment.augmented(waves, noises, rng, np.arange(20) >= 15)

    assert found.abs().max() <= 1
    torch.testing.assert_close(found * 32768, (found * 32768).round())
    assert (found.square().mean(1) > 0).all()
    assert len({round(level(row[None]), 3) for row in found[:15]}) > 5
