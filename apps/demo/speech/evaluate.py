"""Check the demo's ear with the stock faster-whisper: `python -m apps.demo.speech.evaluate`.

Sentences are held out from the training by a hash; voices are those of the training, or some that it never
had. The word error rate (WER) is told for each way the voice may take, for both lengths of input, and for
freely written sentences alone; beside it how often noise without speech gives text, how far the words'
beginnings are from where espeak-ng puts them, and what a clip costs.
"""

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jiwer
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from apps.demo.speech import augment, voices
from apps.demo.speech.convert import MODEL
from apps.demo.speech.synthesis import RATE, Clip, clips, speak
from apps.demo.speech.texts import held_out, messages, pieces, speakable, units
from stages.postprocess.speak.espeak import Style

RESULTS = Path(__file__).with_name("results.json")
NOISE_CLIPS = 25

Wave = NDArray[np.float32]


class Case(NamedTuple):
    """A clip as it reaches the ear; `words` are the seconds at which each word begins."""

    wave: Wave
    text: str
    words: list[float]


class Score(NamedTuple):
    """How well some clips were heard."""

    wer_percent: float
    sentences_right_percent: float
    clips: int


class Window:
    """Give the encoder of `whisper` the window of its preprocessor_config alone: ten times as fast as 30 s."""

    def __init__(self, whisper: Any) -> None:
        self._encode = whisper.encode
        self._frames: int = whisper.feature_extractor.nb_max_frames

    def __call__(self, features: NDArray[np.float32]) -> Any:
        """Encode the first frames of (mels, frames)."""
        return self._encode(np.ascontiguousarray(features[..., : self._frames]))


def load(folder: Path, *, window: bool) -> Any:
    """The stock faster-whisper on one core; with `window` it encodes 8 s instead of 30."""
    from faster_whisper import WhisperModel

    whisper = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    if window:
        whisper.encode = Window(whisper)
    return whisper


def transcribe(whisper: Any, wave: Wave, **options: Any) -> tuple[str, list[Any]]:
    """The text and the words of `wave`."""
    segments = list(whisper.transcribe(wave, language="en", beam_size=1, temperature=0.0, **options)[0])
    words = [word for segment in segments for word in segment.words or ()]
    return " ".join("".join(segment.text for segment in segments).split()), words


def score(whisper: Any, cases: Sequence[Case], title: str, console: Console) -> Score:
    """Transcribe `cases`."""
    heard = [transcribe(whisper, one.wave)[0] for one in track(cases, title, console=console)]
    said = [one.text for one in cases]
    right = sum(map(str.__eq__, said, heard))
    return Score(round(100 * jiwer.wer(said, heard), 2), round(100 * right / len(cases), 1), len(cases))


def case(clip: Clip, rng: np.random.Generator, way: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Case:
    """`clip` with some silence before and after, at a usual level, and taken some `way`."""
    before, after = int(rng.uniform(0.1, 0.4) * RATE), int(rng.uniform(0.1, 0.5) * RATE)
    wave = np.pad(clip.samples.astype(np.float32) / 32768, (before, after))
    if way:
        wave = way(torch.from_numpy(wave)[None])[0].numpy()
    begun, parts = {}, units(clip.text)
    for span in reversed(clip.units):
        begun[parts[int(span.what)].word] = (span.start + before) / RATE
    return Case(wave.astype(np.float32), clip.text, [begun[at] for at in sorted(begun)])


def freely_written(seed: int) -> Iterator[Clip]:
    """Held-out sentences that people wrote, in voices of the training."""
    rng = random.Random(seed)
    found = sorted({one for text in messages() for one in pieces(text) if speakable(one) and held_out(one)})
    rng.shuffle(found)
    for text in found:
        yield speak(text, voices.seen(rng))


def ways(seed: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor] | None]:
    """What may happen to a voice between its mouth and the ear."""
    rng, noises = np.random.default_rng(seed), augment.bank(seed)

    def noisy(wave: torch.Tensor) -> torch.Tensor:
        power = wave.square().sum() / (wave != 0).sum()
        return wave + augment.noise(noises, 1, wave.shape[1], rng) * power.sqrt() * 10 ** (-10 / 20)

    return {
        "telephone": lambda wave: augment.through_telephone(wave, rng),
        "noise_10_db": noisy,
        "room": lambda wave: augment.through_room(wave, rng),
        "quiet_30_db": lambda wave: wave * 10 ** (-30 / 20),
        "overloaded": lambda wave: (wave * 4).clamp(-1, 1),
    }


def conditions(count: int, seed: int) -> Iterator[tuple[str, list[Case]]]:
    """Each condition's name and its clips."""
    rng = np.random.default_rng(seed)

    def spoken(voice: Callable[[random.Random], Style]) -> list[Clip]:
        return list(islice(clips(seed, held=True, voice=voice), count))

    seen = spoken(voices.seen)
    yield "seen_voices", [case(clip, rng) for clip in seen]
    yield "unseen_voices", [case(clip, rng) for clip in spoken(voices.unseen)]
    yield "default_voices", [case(clip, rng) for clip in spoken(voices.default)]
    yield "freely_written", [case(clip, rng) for clip in islice(freely_written(seed), count)]
    for name, way in ways(seed).items():
        yield name, [case(clip, rng, way) for clip in seen]


def false_texts(whisper: Any, seed: int) -> dict[str, str]:
    """How many of NOISE_CLIPS clips of each noise, 3 s at -26 dB, give text, without and with faster-whisper's VAD."""
    rng, found = np.random.default_rng(seed), {}
    kinds = {"silence": lambda _, length: np.zeros(length, np.float32), **augment.KINDS}
    for name, make in kinds.items():
        waves = [make(rng, 3 * RATE) * np.float32(0.05) for _ in range(NOISE_CLIPS)]
        plain = sum(bool(transcribe(whisper, wave)[0]) for wave in waves)
        voiced = sum(bool(transcribe(whisper, wave, vad_filter=True)[0]) for wave in waves)
        found[name] = f"{plain} and {voiced} of {NOISE_CLIPS}"
    return found


def start_errors(whisper: Any, cases: Sequence[Case]) -> dict[str, float]:
    """How many seconds the beginnings of the words are off, in clips that are heard without an error."""
    off = []
    for one in cases:
        heard, words = transcribe(whisper, one.wave, word_timestamps=True)
        if heard == one.text and len(words) == len(one.words):
            off += [abs(word.start - begun) for word, begun in zip(words, one.words, strict=True)]
    off.sort()
    return {"mean_s": round(statistics.fmean(off), 3), "p90_s": round(off[9 * len(off) // 10], 3), "words": len(off)}


def milliseconds(whisper: Any, cases: Sequence[Case]) -> float:
    """What a clip takes, on one core."""
    start = time.perf_counter()
    for one in cases:
        transcribe(whisper, one.wave)
    return round(1000 * (time.perf_counter() - start) / len(cases), 1)


def main(
    folder: Annotated[Path, typer.Option(help="The converted model.")] = MODEL,
    count: Annotated[int, typer.Option(help="Clips of each condition.")] = 300,
    seed: Annotated[int, typer.Option()] = 77,
    results: Annotated[Path, typer.Option(help="Where the figures are written.")] = RESULTS,
) -> None:
    """Evaluate the model and write what was found."""
    console = Console()
    torch.manual_seed(seed)
    stock, quick = load(folder, window=False), load(folder, window=True)
    scores, seen = {}, list[Case]()
    for name, cases in conditions(count, seed):
        seen = seen or cases
        scores[name] = score(quick, cases, f"{name}, 8 s", console)._asdict()
        console.print(name, scores[name])
    scores["seen_voices_30_s"] = score(stock, seen[: count // 2], "seen_voices, 30 s", console)._asdict()
    found = {
        "scores": scores,
        "false_texts_without_and_with_vad": false_texts(quick, seed),
        "word_starts": start_errors(quick, seen),
        "ms_a_clip_one_core": {"8_s": milliseconds(quick, seen[:50]), "30_s": milliseconds(stock, seen[:20])},
        "training": json.loads((folder / "training.json").read_text()),
    }
    results.write_text(json.dumps(found, indent=2) + "\n")
    console.print_json(data=found)


if __name__ == "__main__":
    typer.run(main)
