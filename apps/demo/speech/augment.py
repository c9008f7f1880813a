"""What happens to a voice on its way to the ear: rooms, telephones, noise, wrong levels.

Everything works on a batch at once: (clips, samples) at 16 kHz, about 1.0 at full scale.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATE = 16_000
BANK_S = 20
MU = 255.0
TELEPHONE_SHARE = 0.25
ROOM_SHARE = 0.25
NOISY_SHARE = 0.75

Wave = NDArray[np.float32]


def coloured(rng: np.random.Generator, length: int, slope: float) -> Wave:
    """Noise whose power falls with the frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    return unit(np.fft.irfft(spectrum * frequency ** (-slope / 2), length))


def modulated(rng: np.random.Generator, length: int) -> Wave:
    """Noise that comes and goes like syllables do, and is none."""
    slow = coloured(rng, length, 2.0)
    steps = np.interp(np.arange(length), np.arange(0, length, RATE // 8), rng.uniform(0, 1, -(-length // (RATE // 8))))
    return unit(coloured(rng, length, rng.uniform(0, 1.5)) * steps**2 + 0.05 * slow)


def hum(rng: np.random.Generator, length: int) -> Wave:
    """The mains and their overtones."""
    time, base = np.arange(length) / RATE, rng.choice((50.0, 60.0, 100.0, 120.0))
    return unit(
        sum(rng.uniform(0, 1) / n * np.sin(2 * np.pi * base * n * time + rng.uniform(0, 6)) for n in range(1, 9))
    )


def music(rng: np.random.Generator, length: int) -> Wave:
    """Chords of plucked notes."""
    sound, time = np.zeros(length + 2 * RATE), np.arange(2 * RATE) / RATE
    for begin in np.arange(0, length, int(rng.uniform(0.15, 0.6) * RATE)):
        for note in rng.integers(40, 84, rng.integers(1, 4)):
            pitch, decay = 440 * 2 ** ((note - 69) / 12), np.exp(-time * rng.uniform(1, 8))
            overtones = sum(np.sin(2 * np.pi * pitch * n * time) / n**1.5 for n in range(1, 5))
            sound[begin : begin + len(time)] += decay * overtones
    return unit(sound[:length])


def tones(rng: np.random.Generator, length: int) -> Wave:
    """Beeps: pure, steady or pulsed."""
    time = np.arange(length) / RATE
    steady = np.sin(2 * np.pi * rng.uniform(150, 3000) * time)
    return unit(steady * (np.sin(2 * np.pi * rng.uniform(0.3, 4) * time) > rng.uniform(-1, 0.5)))


def clicks(rng: np.random.Generator, length: int) -> Wave:
    """Keys, taps and cracks."""
    sound = np.zeros(length)
    for at in rng.integers(0, length - 2000, rng.integers(8, 80)):
        size = int(rng.integers(20, 1500))
        sound[at : at + size] += rng.normal(size=size) * np.exp(-np.arange(size) / size * 6) * rng.uniform(0.2, 1)
    return unit(sound)


def unit(sound: NDArray[np.float64]) -> Wave:
    """`sound` with a mean power of one."""
    scaled: Wave = (sound / (np.sqrt(np.mean(sound**2)) + 1e-9)).astype(np.float32)
    return scaled


KINDS: dict[str, Callable[[np.random.Generator, int], Wave]] = {
    "white": lambda rng, length: coloured(rng, length, 0.0),
    "pink": lambda rng, length: coloured(rng, length, 1.0),
    "brown": lambda rng, length: coloured(rng, length, 2.0),
    "modulated": modulated, "hum": hum, "music": music, "tones": tones, "clicks": clicks,
}  # fmt: skip


def bank(seed: int, each: int = 5) -> Tensor:
    """Noises of all kinds, (noises, BANK_S seconds), of power one."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([make(rng, BANK_S * RATE) for make in KINDS.values() for _ in range(each)]))


def noise(noises: Tensor, clips: int, length: int, rng: np.random.Generator) -> Tensor:
    """A stretch of noise for each clip, sometimes two mixed; (clips, length), of power about one."""
    found = torch.empty(clips, length)
    for at in range(clips):
        begin = int(rng.integers(0, noises.shape[1] - length))
        found[at] = noises[rng.integers(len(noises)), begin : begin + length]
        if rng.random() < 0.3:
            found[at] += noises[rng.integers(len(noises)), begin : begin + length] * rng.uniform(0.2, 1)
    return found


def room(clips: int, rng: np.random.Generator, length: int = 4800) -> Tensor:
    """Impulse responses, (clips, length): the direct sound and an exponentially fading tail."""
    time = torch.arange(length) / RATE
    decay = torch.from_numpy(rng.uniform(0.05, 0.35, (clips, 1))).float() / 6.9
    wet = torch.from_numpy(10 ** (rng.uniform(-16, 2, (clips, 1)) / 20)).float()
    tail = torch.randn(clips, length) * torch.exp(-time / decay) * (time > 0.002)
    response = tail / tail.square().sum(1, keepdim=True).sqrt() * wet
    response[:, 0] = 1.0
    scaled: Tensor = response / (1 + wet**2).sqrt()
    return scaled


def through_room(waves: Tensor, rng: np.random.Generator) -> Tensor:
    """Convolve each of `waves` with its own response."""
    size = fast_length(waves.shape[1] + 4800)
    spectrum = torch.fft.rfft(waves, size) * torch.fft.rfft(room(len(waves), rng), size)
    wet: Tensor = torch.fft.irfft(spectrum, size)[:, : waves.shape[1]]
    return wet


def through_telephone(waves: Tensor, rng: np.random.Generator) -> Tensor:
    """Band-limit to about 300–3400 Hz, sample at 8 kHz in 8 bits of the mu-law, and back."""
    clips, length = waves.shape
    size = fast_length(length)
    frequency = torch.fft.rfftfreq(size, 1 / RATE)[: size // 4 + 1]
    low = torch.from_numpy(rng.uniform(40, 320, (clips, 1))).float()
    high = torch.from_numpy(rng.uniform(3300, 3950, (clips, 1))).float()
    band = torch.sigmoid((frequency - low) / 25) * torch.sigmoid((high - frequency) / 40)
    narrow = torch.fft.irfft(torch.fft.rfft(waves, size)[:, : size // 4 + 1] * band, size // 2) / 2
    squeezed = narrow.sign() * torch.log1p(MU * narrow.abs().clamp(max=1)) / math.log1p(MU)
    coarse = (squeezed * 127.5).round() / 127.5
    coded = coarse.sign() * (torch.exp(coarse.abs() * math.log1p(MU)) - 1) / MU
    spectrum = torch.fft.rfft(coded)
    spectrum[:, -1] = 0
    heard: Tensor = 2 * torch.fft.irfft(spectrum, size)[:, :length]
    return heard


def fast_length(length: int) -> int:
    """The next length whose Fourier transform is quick: a multiple of 4,000."""
    return -(-length // 4000) * 4000


def augmented(waves: Tensor, noises: Tensor, rng: np.random.Generator, only_noise: NDArray[np.bool_]) -> Tensor:
    """Room, noise, level, overload, telephone, 16 bits; where `only_noise`, `waves` are silent and noise is all."""
    some = np.flatnonzero(rng.random(len(waves)) < ROOM_SHARE)
    if len(some):
        waves[some] = through_room(waves[some], rng)
    power = waves.square().sum(1).div((waves != 0).sum(1).clamp(min=1)).sqrt().clamp(min=1e-4)
    ratio = rng.uniform(3, 38, len(waves)) + np.where(rng.random(len(waves)) < NOISY_SHARE, 0, 40)
    scale = power * torch.from_numpy(10 ** (-ratio / 20)).float()
    alone = torch.from_numpy(10 ** (rng.uniform(-75, -6, len(waves)) / 20)).float()
    scale = torch.where(torch.from_numpy(only_noise), alone, scale)
    waves = waves + noise(noises, len(waves), waves.shape[1], rng) * scale[:, None]
    peak = waves.abs().amax(1).clamp(min=1e-4)
    level = torch.from_numpy(10 ** (rng.uniform(-30, 0, len(waves)) / 20)).float() / peak
    overload = torch.from_numpy(np.where(rng.random(len(waves)) < 0.06, rng.uniform(1.5, 5, len(waves)), 1.0)).float()
    level = torch.where(torch.from_numpy(only_noise), torch.ones(len(waves)), level * overload)
    waves = (waves * level[:, None]).clamp(-1, 1)
    some = np.flatnonzero(rng.random(len(waves)) < TELEPHONE_SHARE)
    if len(some):
        waves[some] = through_telephone(waves[some], rng)
    return (waves * 32767).round() / 32768
