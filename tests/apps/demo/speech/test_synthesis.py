"""Speech with its timings, on the real espeak-ng."""

import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from apps.demo.speech import voices
from apps.demo.speech.synthesis import RATE, clips, resample, speak, write, write_all
from apps.demo.speech.texts import held_out, units
from stages.postprocess.speak.espeak import SAMPLE_RATE, Style, espeak


@pytest.mark.parametrize("text", ["where is my order 84410", "what's the price of the rain jacket", "hello"])
def test_each_unit_has_its_time(text: str) -> None:
    """Words and digits follow each other, each heard for a while; words that espeak joined share their time."""
    clip = speak(text, Style())

    assert [span.what for span in clip.units] == list(range(len(units(text))))
    for span, after in zip(clip.units, [*clip.units[1:], None], strict=True):
        assert span.end - span.start > 0.03 * RATE
        assert span.end <= (after.start if after else len(clip.samples))


def test_words_are_where_they_sound() -> None:
    """Between its two words a long pause is quiet, and the words are not."""
    clip = speak("jacket backpack", Style(gap=40))
    first, second = clip.units

    loud = [np.abs(clip.samples[span.start : span.end].astype(float)).mean() for span in (first, second)]
    quiet = np.abs(clip.samples[first.end + 800 : second.start - 800].astype(float)).mean()

    assert second.start - first.end > 0.2 * RATE
    assert min(loud) > 20 * quiet


def test_stretch_makes_deeper_and_slower() -> None:
    """The same voice from a longer throat takes longer, and so do its words."""
    usual, longer = speak("two tents", Style()), speak("two tents", Style(), stretch=1.1)

    assert len(longer.samples) == pytest.approx(1.1 * len(usual.samples), rel=0.001)
    assert longer.units[1].start == pytest.approx(1.1 * usual.units[1].start, rel=0.01)


def test_resampling_keeps_a_tone() -> None:
    """A tone keeps its pitch and its level, and what the new rate cannot hold is gone."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    low, high = (np.rint(8000 * np.sin(2 * np.pi * pitch * time)).astype(np.int16) for pitch in (1000, 9500))

    heard = resample(low, RATE / SAMPLE_RATE)[500:-500]
    expected = 8000 * np.sin(2 * np.pi * 1000 * np.arange(500, 500 + len(heard)) / RATE)

    assert np.abs(heard - expected).max() < 100
    assert np.abs(resample(high, RATE / SAMPLE_RATE)[500:-500]).max() < 800


def test_all_voices_exist() -> None:
    """espeak-ng has every accent and variant, and none of the unseen ones is among the seen."""
    names = [*voices.ACCENTS, *voices.UNSEEN_ACCENTS]
    names += [f"en-us+{variant}" for variant in (*voices.VARIANTS, *voices.UNSEEN_VARIANTS) if variant]

    assert [name for name in names if name not in espeak().voices] == []
    assert not set(voices.VARIANTS) & set(voices.UNSEEN_VARIANTS)
    assert not set(voices.ACCENTS) & set(voices.UNSEEN_ACCENTS)


def test_unseen_voices_are_unseen() -> None:
    """Each has an accent or a variant that the training lacks."""
    rng = random.Random(0)
    for _ in range(200):
        accent, _, variant = voices.unseen(rng).voice.partition("+")
        assert accent in voices.UNSEEN_ACCENTS or variant in voices.UNSEEN_VARIANTS


@pytest.mark.slow
def test_parts_are_written_side_by_side(tmp_path: Path) -> None:
    """Two processes write half of the clips each, and the last progress is all of them."""
    told = list[int]()

    samples = write_all(tmp_path, count=6, workers=2, progress=told.append)

    parts = [(tmp_path / f"part{n}" / "clips.jsonl").read_text().splitlines() for n in range(2)]
    assert [len(lines) for lines in parts] == [3, 3]
    assert parts[0] != parts[1]
    assert samples == sum(json.loads(line)["length"] for lines in parts for line in lines)
    assert told[-1] == 6


def test_a_corpus_is_written(tmp_path: Path) -> None:
    """What was spoken can be read back, and nothing of it is held out."""
    samples = write(tmp_path, seed=5, count=8)

    lines = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    audio = np.fromfile(tmp_path / "audio.i16", np.int16)
    again = next(islice(clips(5, held=False, voice=voices.seen), 7, None))
    assert len(audio) == samples == sum(line["length"] for line in lines)
    assert not any(held_out(line["text"]) for line in lines)
    assert lines[7]["text"] == again.text
    np.testing.assert_array_equal(audio[lines[7]["at"] :], again.samples)
