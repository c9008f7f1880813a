"""Music and other sounds with a pitch, for the training: nobody speaks in them, and they are to give no text.

All is computed, nothing is sampled: instruments are partials under an envelope, tunes are random walks on scales.
Everything returns samples at RATE, of power one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apps.demo.speech.augment import RATE, Wave, coloured, modulated, unit

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10), tuple(range(12)))
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 7, 10), (0, 5, 7), (0, 7, 12), (0, 3, 6, 9), (0, 4, 8))
HIGHEST_HZ = 7000.0

Sound = NDArray[np.float64]


class Instrument(NamedTuple):
    """How a note sounds: partials (ratio to its pitch, loudness), an envelope in seconds, and what wavers in it."""

    ratios: Sound
    loudness: Sound
    attack: float
    decay: float
    release: float
    vibrato: tuple[float, float]
    """(Hz, share of the pitch)"""
    tremolo: tuple[float, float]
    """(Hz, share of the loudness)"""
    gated: bool
    """whether its tremolo is a switch"""
    resonance: tuple[float, float, float] | None
    """(Hz, octaves by which it moves, times a second), like a wah-wah; None: there is none"""


def instrument(rng: np.random.Generator) -> Instrument:
    """Any one: struck, plucked, blown, bowed, or none that there is."""
    count = int(rng.integers(1, 16))
    ratios = np.arange(1, count + 1, dtype=np.float64)
    kind = rng.random()
    if kind < 0.15:
        ratios = 2 * ratios - 1
    elif kind < 0.35:
        ratios = ratios * np.sqrt(1 + rng.uniform(0, 0.02) * ratios**2)
    elif kind < 0.5:
        ratios = np.sort(np.concatenate([[1.0], rng.uniform(1, 8, count - 1)]))
    loudness = ratios ** -rng.uniform(0.3, 2.5) * rng.uniform(0.2, 1, count)
    held = rng.random() < 0.5
    return Instrument(
        ratios,
        loudness,
        attack=10 ** rng.uniform(-2.7, -0.5),
        decay=10 ** rng.uniform(0.3, 1.3) if held else 10 ** rng.uniform(-1.2, 0.3),
        release=10 ** rng.uniform(-1.8, -0.3),
        vibrato=(rng.uniform(2, 9), rng.choice((0.0, 1.0)) * 10 ** rng.uniform(-2.7, -0.3)),
        tremolo=(rng.uniform(0.7, 9), rng.choice((0.0, 1.0)) * rng.uniform(0.1, 1)),
        gated=rng.random() < 0.3,
        resonance=(rng.uniform(300, 2500), rng.uniform(0, 1.5), rng.uniform(0.2, 5)) if rng.random() < 0.25 else None,
    )


def voiced(pitch: Sound, how: Instrument) -> Sound:
    """`pitch`, in Hz for each sample, in the partials of an instrument, before its envelope."""
    time = np.arange(len(pitch)) / RATE
    pitch = pitch * (1 + how.vibrato[1] * np.sin(2 * np.pi * how.vibrato[0] * time))
    phase, sound = 2 * np.pi * np.cumsum(pitch) / RATE, np.zeros(len(pitch))
    for ratio, loudness in zip(how.ratios, how.loudness, strict=True):
        if pitch.max() * ratio > HIGHEST_HZ:
            continue
        partial = np.sin((phase * ratio).astype(np.float32)) * loudness
        sound += partial if how.resonance is None else partial * resonance(pitch * ratio, time, how.resonance)
    swing: Sound = np.sin(2 * np.pi * how.tremolo[0] * time)
    wavering: Sound = sound * (1 - how.tremolo[1] * (0.5 + 0.5 * (np.sign(swing) if how.gated else swing)))
    return wavering


def resonance(pitch: Sound, time: Sound, where: tuple[float, float, float]) -> Sound:
    """How loud a partial of `pitch` Hz is beside a resonance that moves."""
    centre = where[0] * 2 ** (where[1] * np.sin(2 * np.pi * where[2] * time))
    gain: Sound = 0.05 + 1 / (1 + (8 * np.log2(np.maximum(pitch, 20) / centre)) ** 2)
    return gain


def note(pitch: float, seconds: float, how: Instrument) -> Sound:
    """One note of `pitch` Hz; it fades for as long as the instrument does."""
    count, rest = int(seconds * RATE), int(3 * how.release * RATE)
    time = np.arange(count + rest) / RATE
    envelope = np.minimum(time / how.attack, 1) * np.exp(-time / how.decay)
    envelope[count:] *= np.exp(-np.arange(rest) / (how.release * RATE))
    sound: Sound = voiced(np.full(count + rest, pitch), how) * envelope
    return sound


def hertz(key: float) -> float:
    """The pitch of a MIDI key."""
    return float(440 * 2 ** ((key - 69) / 12))


def put(sound: Sound, at: float, what: Sound) -> None:
    """Add `what` to `sound` from second `at` on, as far as there is room."""
    begin = int(at * RATE)
    fits = what[: max(0, len(sound) - begin)]
    sound[begin : begin + len(fits)] += fits


def melody(rng: np.random.Generator, length: int) -> Wave:
    """One instrument and a random walk on a scale, sometimes in two voices."""
    sound = np.zeros(length)
    for _ in range(rng.choice((1, 1, 2))):
        how, beat, at = instrument(rng), rng.uniform(0.1, 0.6), rng.uniform(0, 0.5)
        scale, root = SCALES[rng.integers(len(SCALES))], int(rng.integers(40, 80))
        place, legato = int(rng.integers(0, 8)), rng.uniform(0.4, 1.2)
        while at < length / RATE:
            beats = float(rng.choice((0.5, 1, 1, 1, 2, 3)))
            place = int(np.clip(place + rng.integers(-3, 4), -7, 14))
            key = root + 12 * (place // len(scale)) + scale[place % len(scale)]
            if rng.random() > 0.12:
                put(sound, at, note(hertz(key), beat * beats * legato, how) * rng.uniform(0.4, 1))
            at += beat * beats
    return unit(sound)


def chords(rng: np.random.Generator, length: int) -> Wave:
    """Chords of one instrument, held or struck again and again."""
    sound, how, at = np.zeros(length), instrument(rng), 0.0
    bar, root, again = rng.uniform(0.6, 4), int(rng.integers(40, 66)), int(rng.choice((1, 1, 2, 4, 6)))
    while at < length / RATE:
        keys = root + int(rng.integers(0, 12)) + np.array(CHORDS[rng.integers(len(CHORDS))])
        spread = rng.choice((0.0, 0.0, 0.03, 0.15))
        for number in range(again):
            for place, key in enumerate(keys):
                put(sound, at + number * bar / again + place * spread, note(hertz(key), bar / again, how))
        at += bar
    return unit(sound)


def pad(rng: np.random.Generator, length: int) -> Wave:
    """Some pitches at once that last and waver, each in its own way or all in the same."""
    how, sound = instrument(rng), np.zeros(length)
    for _ in range(rng.integers(2, 8)):
        how = how if rng.random() < 0.5 else instrument(rng)
        sound += voiced(np.full(length, np.exp(rng.uniform(np.log(80), np.log(1500)))), how) * rng.uniform(0.2, 1)
    return unit(sound)


def sirens(rng: np.random.Generator, length: int) -> Wave:
    """A pitch that goes up and down without end: as a sine, in lines, in steps, or like a saw."""
    time, rate = np.arange(length) / RATE, 10 ** rng.uniform(-0.8, 1.0)
    turn = (time * rate + rng.random()) % 1
    swings = (np.sin(2 * np.pi * turn), 4 * np.abs(turn - 0.5) - 1, np.sign(turn - 0.5), 2 * turn - 1)
    middle, width = np.exp(rng.uniform(np.log(250), np.log(2000))), rng.uniform(0.03, 0.85)
    return unit(voiced(middle * (1 + width * swings[rng.integers(4)]), instrument(rng)))


def glides(rng: np.random.Generator, length: int) -> Wave:
    """A pitch that wanders, slowly or fast, with pauses or without: slides, whistles, birds, a saw."""
    every, time = int(10 ** rng.uniform(-1.4, 0.3) * RATE), np.arange(length)
    knots = np.arange(0, length + 2 * every, every)
    lowest = np.exp(rng.uniform(np.log(90), np.log(3000)))
    pitch = np.interp(time, knots, lowest * 2 ** rng.uniform(0, rng.uniform(0.1, 1.5), len(knots)))
    loud = np.interp(time, knots, rng.uniform(0, 1, len(knots)) ** rng.choice((0, 1, 2)))
    return unit(voiced(pitch, instrument(rng)) * loud * (loud >= rng.choice((0.0, 0.0, 0.3))))


def bells(rng: np.random.Generator, length: int) -> Wave:
    """Frequency modulation whose depth fades: bells, marimbas, electric pianos, brass."""
    sound, at = np.zeros(length), 0.0
    ratio, depth, decay = rng.choice((1, 2, 3.5, 1.41, 2.76, 5)), rng.uniform(0.5, 6), 10 ** rng.uniform(-1, 0.5)
    time = np.arange(int(2.5 * RATE)) / RATE
    while at < length / RATE:
        pitch, fade = hertz(int(rng.integers(45, 90))), np.exp(-time / decay)
        put(
            sound, at, np.sin(2 * np.pi * pitch * time + depth * fade * np.sin(2 * np.pi * pitch * ratio * time)) * fade
        )
        at += rng.uniform(0.08, 1.2)
    return unit(sound)


def drum(rng: np.random.Generator, pitch: float, fall: float, noise: float, decay: float) -> Sound:
    """A stroke: a pitch that falls by a share of itself, and so much noise."""
    time = np.arange(int(5 * decay * RATE)) / RATE
    tone = np.sin(2 * np.pi * np.cumsum(pitch * (1 - fall + fall * np.exp(-time * 30))) / RATE)
    stroke: Sound = (tone * (1 - noise) + rng.normal(size=len(time)) * noise) * np.exp(-time / decay)
    return stroke


def drums(rng: np.random.Generator, length: int) -> Wave:
    """A pattern of sixteen steps, over and over, with mistakes."""
    sound, step = np.zeros(length), rng.uniform(0.08, 0.2)
    kit = [
        drum(rng, rng.uniform(60, 900), rng.uniform(0, 0.7), rng.uniform(0, 1), 10 ** rng.uniform(-1.7, -0.5))
        for _ in range(rng.integers(2, 5))
    ]
    pattern = rng.random((len(kit), 16)) < rng.uniform(0.1, 0.5)
    for number in range(int(length / RATE / step)):
        for stroke, steps in zip(kit, pattern, strict=True):
            if steps[number % 16] != (rng.random() < 0.05):
                put(sound, number * step, stroke * rng.uniform(0.5, 1))
    return unit(sound + 1e-4 * rng.normal(size=length))


def bursts(rng: np.random.Generator, length: int) -> Wave:
    """Noise in bursts: applause, rain, steps, an engine, a gate."""
    time, noise = np.arange(length) / RATE, coloured(rng, length, rng.uniform(0, 2)).astype(np.float64)
    turn = (time * 10 ** rng.uniform(-0.3, 1.5) + rng.random()) % 1
    shapes = (np.exp(-turn * rng.uniform(1, 8)), turn < rng.uniform(0.2, 0.8), 0.5 + 0.5 * np.sin(2 * np.pi * turn))
    shape = shapes[rng.integers(3)]
    return unit(noise * shape + (modulated(rng, length) if rng.random() < 0.3 else 0.0))


def signals(rng: np.random.Generator, length: int) -> Wave:
    """Two pitches at once, in a rhythm: dialling, ringing, engaged, a modem."""
    sound, at, beat = np.zeros(length), 0.0, 10 ** rng.uniform(-1.3, 0.0)
    ringing = rng.uniform(300, 2000, 2) if rng.random() < 0.5 else None
    while at < length / RATE:
        time = np.arange(int(beat * rng.uniform(0.4, 1) * RATE)) / RATE
        pitches = rng.uniform(300, 2500, 2) if ringing is None else ringing
        put(sound, at, np.sin(2 * np.pi * np.outer(pitches, time)).sum(0))
        at += beat
    return unit(sound)


def band(rng: np.random.Generator, length: int) -> Wave:
    """Several at once."""
    parts = [KINDS[name](rng, length) * rng.uniform(0.2, 1) for name in ("melody", "chords", "drums", "melody")]
    return unit(np.sum(parts[: rng.integers(2, 5)], 0))


KINDS: dict[str, Callable[[np.random.Generator, int], Wave]] = {
    "melody": melody, "chords": chords, "pad": pad, "sirens": sirens, "glides": glides, "bells": bells,
    "drums": drums, "bursts": bursts, "signals": signals, "band": band,
}  # fmt: skip


def piece(rng: np.random.Generator, length: int) -> Wave:
    """Music of any kind."""
    return KINDS[rng.choice(list(KINDS))](rng, length)
