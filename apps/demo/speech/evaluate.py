"""Check the demo's ear: `python -m apps.demo.speech.evaluate`.

Sentences are held out from the training by a hash; voices are those of the training, or some that it never
had. The word error rate (WER) is told for each way the voice may take and for freely written sentences
alone, through the recogniser of the speech stage, and for some through the stock faster-whisper, too;
beside it how often noise without speech gives text (before any voice detection), how far the words'
beginnings are from where espeak-ng puts them, and what a clip costs. Through the whole speech stage, with
its voice detection, are tried: how often speech has no text, short answers included, and what a minute each
of music and noise gives, which other code makes than that of the training (`whole.py`); `--recordings`
takes a folder of more sounds without speech. That of the shipped figures had 34 minutes of Debian's
fluidsynth with timgm6mb-soundfont: 30 instruments, drums, two bands and an orchestra, playing at random.
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
from faster_whisper.audio import decode_audio
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from apps.demo.speech import augment, voices, whole
from apps.demo.speech.convert import MODEL
from apps.demo.speech.synthesis import RATE, Clip, clips, speak
from apps.demo.speech.texts import held_out, messages, numbered, pieces, speakable, units
from stages.postprocess.speak.espeak import Style
from stages.preprocess.speech.recogniser import Task
from stages.preprocess.speech.whisper import Whisper

RESULTS = Path(__file__).with_name("results.json")
NOISE_CLIPS = 25
SHORT = (
    "yes", "no", "yes please", "no thanks", "hello", "ok", "thanks", "please", "good", "two", "hi", "yes it is", "blue",
    "sorry",
)  # fmt: skip
THROUGH = ("seen_voices", "unseen_voices", "default_voices", "telephone", "noise_10_db", "short_answers")

Wave = NDArray[np.float32]
Hear = Callable[[Wave], str]


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


def stock(folder: Path) -> Hear:
    """faster-whisper as it is."""
    whisper = load(folder, window=False)
    return lambda wave: transcribe(whisper, wave)[0]


def quick(folder: Path) -> Hear:
    """faster-whisper that encodes 8 s."""
    whisper = load(folder, window=True)
    return lambda wave: transcribe(whisper, wave)[0]


def pipeline(folder: Path) -> Hear:
    """The recogniser of the speech stage, which pads to 2, 4 or 8 s."""
    whisper = Whisper(str(folder), device="cpu", compute_type="int8", threads=1)

    def hear(wave: Wave) -> str:
        (found,) = whisper.recognise([Task(frames=(wave,))])
        return "".join(word.text for word in found.words).strip()

    return hear


def score(hear: Hear, cases: Sequence[Case], title: str, console: Console) -> Score:
    """Transcribe `cases`."""
    heard = [hear(one.wave) for one in track(cases, title, console=console)]
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


def order_numbers(seed: int) -> Iterator[Clip]:
    """Held-out order numbers, alone or in a sentence, in voices of the training."""
    rng = random.Random(seed)
    while True:
        if held_out(text := numbered(rng)):
            yield speak(text, voices.seen(rng))


def short_answers(seed: int) -> Iterator[Clip]:
    """A word or three, in voices of the training and others."""
    rng = random.Random(seed)
    while True:
        yield speak(rng.choice(SHORT), rng.choice((voices.seen, voices.unseen))(rng))


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
    yield "order_numbers", [case(clip, rng) for clip in islice(order_numbers(seed), count)]
    for name, way in ways(seed).items():
        yield name, [case(clip, rng, way) for clip in seen]


def false_texts(hear: Hear, seed: int) -> dict[str, int]:
    """How many of NOISE_CLIPS clips of each noise, 3 s at -26 dB, give text; none has seen the voice detection."""
    rng, found = np.random.default_rng(seed), {}
    kinds = {"silence": lambda _, length: np.zeros(length, np.float32), **augment.KINDS}
    for name, make in kinds.items():
        found[name] = sum(bool(hear(make(rng, 3 * RATE) * np.float32(0.05))) for _ in range(NOISE_CLIPS))
    return found


def without_text(folder: Path, conditions: dict[str, Sequence[Case]]) -> dict[str, str]:
    """In how many of the clips the whole speech stage hears nothing."""
    found = {}
    for name, cases in conditions.items():
        told = whole.listen(folder, [one.wave for one in cases])
        found[name] = f"{sum(not one.texts for one in told)} of {len(told)}"
    return found


def sounds_without_speech(folder: Path, seed: int, recordings: Path | None) -> dict[str, whole.Told]:
    """What the whole speech stage tells of a minute of each sound, and of all `recordings`."""
    sounds = dict(whole.sounds(seed))
    for file in sorted(recordings.iterdir()) if recordings else ():
        sounds[file.stem] = decode_audio(str(file), sampling_rate=RATE)
    return dict(zip(sounds, whole.listen(folder, sounds.values()), strict=True))


def start_errors(whisper: Any, cases: Sequence[Case]) -> dict[str, float]:
    """How many seconds the beginnings of the words are off, in clips that are heard without an error.

    First words stand apart: Whisper's alignment lets them begin with the clip, the silence before them included.
    """
    first, others = list[float](), list[float]()
    for one in cases:
        heard, words = transcribe(whisper, one.wave, word_timestamps=True)
        if heard == one.text and len(words) == len(one.words):
            off = [abs(float(word.start) - begun) for word, begun in zip(words, one.words, strict=True)]
            first.append(off[0])
            others += off[1:]
    return {
        "mean_s": round(statistics.fmean(others), 3),
        "p90_s": round(statistics.quantiles(others, n=10)[-1], 3),
        "words": len(others),
        "first_words_mean_s": round(statistics.fmean(first), 3),
    }


def milliseconds(hear: Hear, cases: Sequence[Case]) -> float:
    """What a clip takes, on one core: the median."""
    taken = []
    for one in cases:
        start = time.perf_counter()
        hear(one.wave)
        taken.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(taken), 1)


def main(
    folder: Annotated[Path, typer.Option(help="The converted model.")] = MODEL,
    count: Annotated[int, typer.Option(help="Clips of each condition.")] = 300,
    seed: Annotated[int, typer.Option()] = 77,
    recordings: Annotated[Path | None, typer.Option(help="A folder of sounds without speech.")] = None,
    results: Annotated[Path, typer.Option(help="Where the figures are written.")] = RESULTS,
) -> None:
    """Evaluate the model and write what was found."""
    console = Console()
    torch.manual_seed(seed)
    hears = {"stage": pipeline(folder), "8_s": quick(folder), "stock_30_s": stock(folder)}
    scores, kept = {}, dict[str, Sequence[Case]]()
    for name, cases in conditions(count, seed):
        kept[name] = cases
        scores[name] = score(hears["stage"], cases, name, console)._asdict()
        console.print(name, scores[name])
    rng, seen = np.random.default_rng(seed), kept["seen_voices"]
    kept["short_answers"] = [case(clip, rng) for clip in islice(short_answers(seed), count)]
    for name in ("8_s", "stock_30_s"):
        scores[f"seen_voices, {name}"] = score(hears[name], seen[: count // 3], name, console)._asdict()
    found = {
        "scores": scores,
        "false_texts": {name: false_texts(hears[name], seed) for name in ("stage", "8_s")},
        "false_texts_of": NOISE_CLIPS,
        "without_text": without_text(folder, {name: kept[name] for name in THROUGH}),
        "sounds_without_speech": {
            name: told._asdict() for name, told in sounds_without_speech(folder, seed, recordings).items()
        },
        "word_starts": start_errors(load(folder, window=True), seen),
        "ms_a_clip_one_core": {name: milliseconds(hear, seen[:30]) for name, hear in hears.items()},
        "training": json.loads((folder / "training.json").read_text()),
    }
    results.write_text(json.dumps(found, indent=2) + "\n")
    console.print_json(data=found)


if __name__ == "__main__":
    typer.run(main)
