from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.postprocess.speak.espeak import SAMPLE_RATE, espeak
from stages.preprocess.speech.ear import Ear
from stages.preprocess.speech.vad import WINDOW, Vad, blank
from tests.stages.preprocess.speech.fakes import silence, tone

RATE = 24_000


@pytest.fixture(scope="module")
def vad() -> Vad:
    """Give Silero VAD."""
    return Vad()


Sound = NDArray[np.int16]


def _speech(text: str) -> Sound:
    spoken = np.frombuffer(espeak().say(text).pcm, np.int16).astype(np.float32)
    places = np.arange(len(spoken) * RATE // SAMPLE_RATE) * (SAMPLE_RATE / RATE)
    sound: Sound = np.interp(places, np.arange(len(spoken)), spoken).astype(np.int16)
    return sound


def _voices(vad: Vad, sound: Sound) -> NDArray[np.float64]:
    return np.array([frame.voice for frame in Ear(vad, "pcm16", 0).hear(sound.tobytes())])


def test_window_by_window_is_as_all_at_once(vad: Vad) -> None:
    """What it remembers makes single windows as good as faster-whisper's way, which hears a file as a whole."""
    from faster_whisper.vad import get_vad_model

    sound = _speech("what time do you open").astype(np.float32)[: 40 * WINDOW] / np.float32(32768)
    whole = get_vad_model()(sound)
    memory, found = blank(), []
    for window in sound.reshape(-1, 1, WINDOW):
        voices, memory = vad.listen(window, memory)
        found.append(voices[0])
    assert np.abs(whole.reshape(-1) - found).max() < 1e-4
    assert max(found) > 0.9


def test_speech_is_found_however_it_was_recorded(vad: Vad) -> None:
    """Quiet, clipped, or with an offset: it is speech from its beginning to its end."""
    speech = _speech("i would like two large coffees please")
    sound = np.concatenate([silence(1), speech, silence(1)]).astype(np.float32)
    for changed in (sound, sound / 40, np.clip(sound * 8, -32768, 32767), np.clip(sound + 8_000, -32768, 32767)):
        voices = _voices(vad, changed.astype(np.int16)) > 0.5
        assert not voices[:25].any()
        assert voices[33:-33].mean() > 0.8
        assert not voices[-25:].any()


def test_what_is_no_speech_is_not_found(vad: Vad) -> None:
    """Nothing, noise, tones, hum, knocks and chords."""
    chance, count = np.random.default_rng(3), 5 * RATE
    time = np.arange(count) / RATE
    knocks = chance.normal(0, 12_000, count) * np.exp(-(time % 1.0) * 100)
    throbbing = chance.normal(0, 5_000, count) * (1 + np.sin(2 * np.pi * 4 * time)) / 2
    chord = sum(2_000 / n * np.sin(2 * np.pi * f * n * time) for f in (220, 277, 330) for n in range(1, 6))
    for sound in (silence(5), chance.normal(0, 3_000, count), tone(5, 440), tone(5, 50), knocks, throbbing, chord):
        assert _voices(vad, np.asarray(sound).astype(np.int16)).max() < 0.5
