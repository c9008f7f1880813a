"""Piper's voices, with a voice that is made up: none is shipped, and Piper's own classes around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from piper import PiperVoice, SynthesisConfig
from piper.voice import AudioChunk

from pipeline.errors import ModelLoadError, SynthesisFailed
from pipeline.voice import RATE
from stages.postprocess.speak.piper import KEPT, PiperSynthesizer
from stages.postprocess.speak.synthesizer import Sound


class FakeVoice:
    """A tone for each sentence, half a second at the usual speed, at 16 kHz."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked: list[SynthesisConfig] = []

    def synthesize(self, text: str, how: SynthesisConfig) -> Iterator[AudioChunk]:
        """See `PiperVoice.synthesize`."""
        self.asked.append(how)
        for sentence in filter(None, text.split(".")):
            time = np.arange(round(8_000 * (how.length_scale or 1))) / 16_000
            wave = np.sin(2 * np.pi * 440 * time).astype(np.float32)
            yield AudioChunk(16_000, 2, 1, wave, phonemes=list(sentence), phoneme_ids=[])


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeVoice]:
    """The voices that were loaded, in their order."""
    voices: list[FakeVoice] = []

    def load(file: Path) -> Any:
        if "broken" in file.name:
            raise ValueError("no model")
        voices.append(FakeVoice(file))
        return voices[-1]

    monkeypatch.setattr(PiperVoice, "load", load)
    return voices


def files(folder: Path, *names: str) -> Path:
    """`folder` with voices of these names."""
    for name in names:
        (folder / f"{name}.onnx").touch()
    return folder


async def said(synthesizer: PiperSynthesizer, text: str, voice: str = "", speed: float = 1.0) -> Sound:
    """The sound of `text`."""
    async with asyncio.timeout(10), aclosing(synthesizer.say(text, voice, speed)) as sounds:
        (sound,) = [sound async for sound in sounds]
    return sound


async def test_text_is_spoken(tmp_path: Path, loaded: list[FakeVoice]) -> None:
    """All its sentences, at 24 kHz, with marks spread over it; what is drawn at random does not change the length."""
    path = files(tmp_path, "en") / "en.onnx"
    async with PiperSynthesizer(path) as synthesizer:
        sound = await said(synthesizer, "One. Two and.", speed=0.5)

    assert len(sound.samples) == 2 * RATE
    assert np.abs(sound.samples).max() > 30_000
    assert sound.marks == ((5, 2 * RATE * 5 // 13), (9, 2 * RATE * 9 // 13))
    assert [(how.length_scale, how.noise_w_scale) for how in loaded[0].asked] == [(2.0, 0.0)]


async def test_voices_of_a_folder(tmp_path: Path, loaded: list[FakeVoice]) -> None:
    """A file's name is a voice; OpenAI's names are given to the voices in turn; unknown ones are the first."""
    async with PiperSynthesizer(files(tmp_path, "a", "b", "c")) as synthesizer:
        assert [synthesizer.file(name).stem for name in ("B", "", "x", "alloy", "ash", "ballad", "cedar")] == [
            "b", "a", "a", "a", "b", "c", "a",
        ]  # fmt: skip
        await said(synthesizer, "One.", "c")
    assert [voice.file.stem for voice in loaded] == ["a", "c"]


async def test_memory_holds_some_voices(tmp_path: Path, loaded: list[FakeVoice]) -> None:
    """The voice that was not used for longest goes when there are too many, and is loaded again when asked for."""
    names = [f"v{n}" for n in range(KEPT + 1)]
    async with PiperSynthesizer(files(tmp_path, *names)) as synthesizer:
        for name in [*names, names[-1], names[0]]:
            await said(synthesizer, "One.", name)
    assert [voice.file.stem for voice in loaded] == [*names, names[0]]


@pytest.mark.parametrize(("name", "why"), [("", "no voice"), ("missing.onnx", "no voice"), ("broken.onnx", "no model")])
def test_what_is_wrong_with_a_voice_is_told_at_the_start(
    tmp_path: Path, loaded: list[FakeVoice], name: str, why: str
) -> None:
    """An empty folder, a file that is not there, and one that is none."""
    if "broken" in name:
        files(tmp_path, "broken")
    with pytest.raises(ModelLoadError, match=why):
        PiperSynthesizer(tmp_path / name)


async def test_text_without_a_sound(tmp_path: Path, loaded: list[FakeVoice]) -> None:
    """A voice that makes nothing of a text has failed."""
    async with PiperSynthesizer(files(tmp_path, "a")) as synthesizer:
        with pytest.raises(SynthesisFailed):
            await said(synthesizer, "...")
