"""What is spoken in a measurement: held-out sentences of the demo's domain, synthesised, or a folder of recordings."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apps.bench.voice_score import words_of
from apps.voice.audio import whole
from apps.voice.exchange import last_loud
from pipeline.errors import SettingsError
from pipeline.voice import RATE

if TYPE_CHECKING:
    from apps.demo.speech.synthesis import Clip as Spoken

SEED = 2026
FEWEST = 3
"""Words of a sentence, at least."""
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".m4a")


class Clip(NamedTuple):
    """Something said. `sound` is PCM16 at 24 kHz; `ends` is when each word of `text` ends, in seconds, if it is known.

    `speech_ends` is the last moment at which it is loud.
    """

    name: str
    text: str
    sound: bytes
    ends: tuple[float, ...]
    speech_ends: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.sound) / 2 / RATE


def demo_clips(count: int, *, unseen: bool = False) -> list[Clip]:
    """Sentences that the demo's model was not trained on, by voices that it was trained on, or (`unseen`) was not."""
    from apps.demo.speech import voices
    from apps.demo.speech.synthesis import clips

    voice = voices.unseen if unseen else voices.default
    spoken = clips(SEED, held=True, voice=voice, senseless_share=0.0)
    enough = (one for one in spoken if len(one.text.split()) >= FEWEST)
    return [_spoken(f"{number}", one) for number, one in enumerate(islice(enough, count))]


def _spoken(name: str, one: Spoken) -> Clip:
    from apps.demo.speech.synthesis import RATE as THEIRS
    from apps.demo.speech.synthesis import resample
    from apps.demo.speech.texts import units

    sound = np.clip(np.rint(resample(one.samples, RATE / THEIRS)), -32768, 32767).astype("<i2").tobytes()
    last = {unit.word: span.end / THEIRS for unit, span in zip(units(one.text), one.units, strict=True)}
    return Clip(name, one.text, sound, tuple(last[at] for at in sorted(last)), last_loud(sound) / RATE)


def folder_clips(folder: Path, count: int) -> list[Clip]:
    """The recordings of a folder, each with its text beside it in a file of the same name with `.txt`.

    Raises:
        SettingsError: there are none, or one has no text.
        UnreadableAudio: one is no sound.
    """
    if not folder.is_dir():
        raise SettingsError("--folder", f"{folder} is no folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SOUNDS)
    if not paths:
        raise SettingsError("--folder", f"there are no recordings in {folder} ({', '.join(SOUNDS)})")
    chosen = random.Random(SEED).sample(paths, min(count, len(paths)))
    return [_recorded(path) for path in chosen]


def _recorded(path: Path) -> Clip:
    beside = path.with_suffix(".txt")
    try:
        text = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("--folder", f"{path.name} has no text in {beside.name}: {error}") from error
    if not words_of(text):
        raise SettingsError("--folder", f"{beside.name} has no words")
    sound = whole(str(path))
    return Clip(path.stem, text, sound, (), last_loud(sound) / RATE)
