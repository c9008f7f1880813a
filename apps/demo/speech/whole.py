"""The whole speech stage on single clips and on sounds in which nobody speaks: voice detection, pieces, recogniser.

The sounds are made by other code, and mostly in other ways, than the music of the training.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apps.demo.speech.augment import KINDS, coloured
from apps.demo.speech.synthesis import RATE
from pipeline.voice import RATE as STREAM_RATE
from pipeline.voice import Detection, Listening, Sound, SpeechStarted, Transcribed
from stages.preprocess.speech.resample import Resampler
from stages.preprocess.speech.stage import SpeechStage
from stages.preprocess.speech.transcriber import Transcriber
from stages.preprocess.speech.vad import Vad
from stages.preprocess.speech.whisper import Whisper

PIECE = 2400
HOW = Listening(detection=Detection(), partials=False)

Wave = NDArray[np.float32]
Make = Callable[[np.random.Generator, int], Wave]
"""So many seconds of a sound."""


class Told(NamedTuple):
    """What the stage tells of a sound: how many turns it took for speech, and the texts that were not empty."""

    turns: int
    texts: list[str]


def listen(folder: Path, waves: Iterable[Wave]) -> list[Told]:
    """What a stage with the model in `folder` tells of each of `waves` (RATE, 1.0 at full scale), silence behind it."""

    async def all_of_them() -> list[Told]:
        async with Transcriber(Whisper(str(folder), device="cpu", compute_type="int8", threads=1)) as transcriber:
            stage = SpeechStage(Vad(), transcriber)
            return [await _told(stage, wave) for wave in waves]

    return asyncio.run(all_of_them())


async def _told(stage: SpeechStage, wave: Wave) -> Told:
    told = [one async for one in stage(_stream(wave))]
    texts = [one.text for one in told if isinstance(one, Transcribed) and one.text]
    return Told(sum(isinstance(one, SpeechStarted) for one in told), texts)


async def _stream(wave: Wave) -> AsyncGenerator[Sound, None]:
    """`wave` and a second of silence as a client sends it."""
    whole = np.pad(wave, (0, RATE + -len(wave) % RATE))
    sound = Resampler(RATE, STREAM_RATE, RATE)
    heard = np.concatenate([sound.turn(block) for block in whole.reshape(-1, RATE)])
    pcm = np.clip(np.rint(heard * 32767), -32768, 32767).astype("<i2")
    for at in range(0, len(pcm), PIECE):
        yield Sound("evaluation", "audio", at, pcm[at : at + PIECE].tobytes(), HOW)


def strings(rng: np.random.Generator, seconds: int) -> Wave:
    """Plucked strings after Karplus and Strong: noise in a delay line that averages itself."""
    sound, at = np.zeros((seconds + 3) * RATE), 0
    while at < seconds * RATE:
        for pitch in 110 * 2 ** (rng.integers(0, 36, rng.integers(1, 4)) / 12):
            line, period = rng.uniform(-1, 1, int(RATE / pitch)), int(RATE / pitch)
            for start in range(at, at + 2 * RATE, period):
                fits = sound[start : start + period]
                fits += line[: len(fits)]
                line = 0.498 * (line + np.roll(line, 1))
        at += int(rng.uniform(0.1, 0.7) * RATE)
    return level(sound[: seconds * RATE])


def chips(rng: np.random.Generator, seconds: int) -> Wave:
    """An old computer's music: pulse waves in fast arpeggios, a triangle below, noise on the beat."""
    time = np.arange(seconds * RATE) / RATE
    step = (time * 12).astype(int)
    high = 220 * 2 ** (rng.choice((0, 3, 4, 7, 12), step[-1] + 1)[step] / 12)
    low = 55 * 2 ** (rng.choice((0, 3, 5, 7), step[-1] // 8 + 1)[step // 8] / 12)
    pulse = np.sign((np.cumsum(high) / RATE) % 1 - rng.choice((0.125, 0.25, 0.5)))
    triangle = 4 * np.abs((np.cumsum(low) / RATE) % 1 - 0.5) - 1
    return level(pulse + 2 * triangle + rng.normal(size=len(time)) * (time % 0.5 < 0.05) * 2)


def wobble(rng: np.random.Generator, seconds: int) -> Wave:
    """Five sines whose vibrato (5 Hz) becomes ever wilder for 12 s, switched twice a second; then again."""
    time = np.arange(seconds * RATE) / RATE % 12
    tones = [np.sin(2 * np.pi * pitch * time * (1 + 0.003 * np.sin(10 * np.pi * time))) for pitch in WOBBLING]
    return level(np.sum(tones, 0) * (0.6 + 0.4 * np.sign(np.sin(4 * np.pi * time))) * rng.choice((1, -1)))


def siren(rng: np.random.Generator, seconds: int) -> Wave:
    """600 Hz and up to 500 above and below, in two seconds."""
    time = np.arange(seconds * RATE) / RATE + rng.random()
    return level(np.sin(2 * np.pi * (600 * time + 160 * np.sin(np.pi * time))))


def wind(rng: np.random.Generator, seconds: int) -> Wave:
    """Noise through narrow resonances that wander: wind, flutes without an edge, a kettle."""
    sound, time = np.zeros(seconds * RATE), np.arange(seconds * RATE) / RATE
    for pitch in rng.uniform(200, 2500, 4):
        slow = coloured(rng, len(time), 0.0)[:: RATE // 4]
        loud = np.interp(time, np.arange(len(slow)) / 4, np.abs(slow))
        narrow = np.convolve(rng.normal(size=len(time)), np.hanning(400), "same")
        sound += narrow * loud * np.sin(2 * np.pi * pitch * (time + 0.02 * np.sin(time * rng.uniform(0.5, 3))))
    return level(sound)


def applause(rng: np.random.Generator, seconds: int) -> Wave:
    """Claps of many hands, which swell and die down."""
    time = np.arange(seconds * RATE) / RATE
    hands = (rng.random(len(time)) < 0.004) * rng.random(len(time))
    swell = 0.1 + np.sin(np.pi * time / 6) ** 2
    return level(np.convolve(hands, np.exp(-np.arange(300) / 60))[: len(time)] * rng.normal(size=len(time)) * swell)


def throbbing(rng: np.random.Generator, seconds: int) -> Wave:
    """Noise that comes and goes four times a second."""
    time = np.arange(seconds * RATE) / RATE
    return level(coloured(rng, len(time), 0.5) * (1 + np.sin(8 * np.pi * time)))


def level(sound: NDArray[np.floating]) -> Wave:
    """`sound` at 0.7 of full scale."""
    loud: Wave = (0.7 * sound / np.abs(sound).max()).astype(np.float32)
    return loud


WOBBLING = (220, 277, 330, 440, 880)
MADE: dict[str, Make] = {
    "strings": strings, "chips": chips, "wobble": wobble, "siren": siren, "wind": wind, "applause": applause,
    "throbbing": throbbing,
}  # fmt: skip


def sounds(seed: int, seconds: int = 60) -> Mapping[str, Wave]:
    """So many seconds of each sound without speech."""
    rng = np.random.default_rng(seed)
    made = {name: make(rng, seconds) for name, make in MADE.items()}
    usual = {name: level(KINDS[name](rng, seconds * RATE)) for name in ("hum", "clicks", "white")}
    return {**made, **usual, "silence": np.zeros(seconds * RATE, np.float32)}
