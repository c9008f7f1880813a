"""Speak sentences with espeak-ng, and tell when each word and phoneme is heard.

A corpus is a folder: `audio.i16` (all clips end to end, int16 at 16 kHz) and `clips.jsonl`.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apps.demo.speech import voices
from apps.demo.speech.texts import Unit, sentences, units
from stages.postprocess.speak import espeak
from stages.postprocess.speak.espeak import Kind, Mark, Style

RATE = 16_000
STRETCHED_SHARE = 0.5
TARGET_COUNT = 200
TAPS = 16

Samples = NDArray[np.int16]


class Span(NamedTuple):
    """A unit (by its place in `units`) or a phoneme (by its name), from sample to sample at RATE."""

    what: int | str
    start: int
    end: int


class Clip(NamedTuple):
    """One spoken sentence."""

    text: str
    voice: str
    samples: Samples
    units: list[Span]
    phonemes: list[Span]


def resample(samples: Samples, ratio: float) -> NDArray[np.float32]:
    """`samples` in `ratio` times as many, by a windowed sinc of TAPS points at the lower of the two rates."""
    at = np.arange(int(len(samples) * ratio)) / ratio
    whole = at.astype(np.int64)
    offsets = np.arange(-TAPS + 1, TAPS + 1)
    cut = min(1.0, ratio)
    far = (offsets[None, :] - (at - whole)[:, None]).astype(np.float32)
    weights = cut * np.sinc(cut * far) * np.cos(np.pi / 2 * np.clip(far / (TAPS + 1), -1, 1)) ** 2
    padded = np.pad(samples.astype(np.float32), TAPS)
    found: NDArray[np.float32] = (padded[whole[:, None] + offsets[None, :] + TAPS] * weights).sum(1, dtype=np.float32)
    return found


def spans(sentence: list[Unit], marks: list[Mark], end: int) -> tuple[list[Span], list[Span]]:
    """When each unit and each phoneme is heard; units that espeak joined share their time by their letters."""
    phonemes: list[Span] = []
    sounds = [mark for mark in marks if mark.kind is Kind.PHONEME]
    for mark, after in zip(sounds, [*[one.at for one in sounds[1:]], end], strict=True):
        phonemes.append(Span(mark.name.strip("',%=|;"), mark.at, after))
    starts, place = [], 0
    for unit in sentence:
        starts.append(place)
        place += len(unit.text) + 1
    begun = {starts.index(mark.start): mark.at for mark in marks if mark.kind is Kind.WORD and mark.start in starts}
    return _filled(sentence, begun, phonemes, end), phonemes


def _filled(sentence: list[Unit], begun: dict[int, int], phonemes: list[Span], end: int) -> list[Span]:
    found: list[Span] = []
    known = sorted(begun)
    for first, after in zip(known, [*known[1:], len(sentence)], strict=True):
        start, stop = begun[first], begun.get(after, end)
        pauses = [one.start for one in phonemes if str(one.what).startswith("_") and start < one.start < stop]
        stop = min([stop, *pauses])
        letters = np.cumsum([0, *(len(unit.text) for unit in sentence[first:after])])
        edges = start + (stop - start) * letters / letters[-1]
        found += [Span(unit, int(edges[at]), int(edges[at + 1])) for at, unit in enumerate(range(first, after))]
    return found


def speak(text: str, style: Style, stretch: float = 1.0) -> Clip:
    """Synthesise `text`; `stretch` above 1 makes the voice deeper and slower, as of a longer throat."""
    sentence = units(text)
    speech = espeak.espeak().say(" ".join(unit.text for unit in sentence), style)
    ratio = RATE / espeak.SAMPLE_RATE * stretch
    heard = resample(np.frombuffer(speech.pcm, np.int16), ratio)
    marks = [mark._replace(at=int(mark.at * ratio)) for mark in speech.marks]
    found, phonemes = spans(sentence, marks, len(heard))
    samples = np.clip(np.rint(heard), -32768, 32767).astype(np.int16)
    return Clip(text, style.voice, samples, found, phonemes)


def clips(
    seed: int, *, held: bool, voice: Callable[[random.Random], Style], senseless_share: float = 0.15
) -> Iterator[Clip]:
    """Spoken sentences without end; those with rare words are kept more often than the others."""
    rng, counts = random.Random(seed), Counter[str]()
    for text in sentences(rng, held=held, senseless_share=senseless_share):
        rarest = min(counts[word] for word in text.split())
        if rng.random() > max(0.2, min(1.0, TARGET_COUNT / 10 / (1 + rarest))):
            continue
        counts.update(text.split())
        stretch = rng.uniform(0.89, 1.12) if rng.random() < STRETCHED_SHARE else 1.0
        clip = speak(text, voice(rng), stretch)
        if len(clip.units) == len(units(text)) and len(clip.samples) < 7.5 * RATE:
            yield clip


def write(folder: Path, seed: int, count: int) -> int:
    """Write `count` clips of the training into `folder`; returns their samples."""
    folder.mkdir(parents=True, exist_ok=True)
    at = 0
    with (folder / "audio.i16").open("wb") as audio, (folder / "clips.jsonl").open("w", encoding="utf-8") as list_of:
        for _, clip in zip(range(count), clips(seed, held=False, voice=voices.seen), strict=False):
            audio.write(clip.samples.tobytes())
            line = {"text": clip.text, "voice": clip.voice, "at": at, "length": len(clip.samples)}
            json.dump(line | {"units": clip.units, "phonemes": clip.phonemes}, list_of)
            list_of.write("\n")
            at += len(clip.samples)
    return at


def write_all(folder: Path, count: int, workers: int, progress: Callable[[int], None]) -> int:
    """Write the corpus in as many parts as there are `workers`; returns its samples.

    Each part depends on its number and size alone. `progress` is told now and then how many clips there are.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(write, folder / f"part{n}", 1000 + n, count // workers) for n in range(workers)]
        while wait(parts, timeout=1.0).not_done:
            progress(sum(path.read_bytes().count(b"\n") for path in folder.glob("part*/clips.jsonl")))
        progress(count)
        return sum(part.result() for part in parts)
