"""The bundled ear, in the hands of the stock faster-whisper."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import jiwer
import numpy as np
import pytest
import torch

from apps.demo.speech import augment, evaluate, music, voices
from apps.demo.speech.convert import MODEL
from apps.demo.speech.evaluate import Case, Wave, case, load, transcribe
from apps.demo.speech.synthesis import RATE, clips, speak
from apps.demo.speech.texts import held_out
from stages.postprocess.speak.espeak import Style


@cache
def whisper(*, window: bool = True) -> Any:
    """The model, loaded once."""
    return load(MODEL, window=window)


@cache
def spoken() -> tuple[Case, ...]:
    """Sentences that the training never had, as a program's usual voices say them."""
    rng = np.random.default_rng(0)
    return tuple(case(clip, rng) for clip in islice(clips(9, held=True, voice=voices.default), 24))


def wer(cases: tuple[Case, ...], heard: Iterator[str]) -> float:
    """The share of wrong words."""
    return float(jiwer.wer([one.text for one in cases], list(heard)))


def test_held_out_sentences_are_heard() -> None:
    """At most one word in twenty is wrong in sentences that are new to it."""
    assert all(held_out(one.text) for one in spoken())
    assert wer(spoken(), (transcribe(whisper(), one.wave)[0] for one in spoken())) <= 0.05


@pytest.mark.slow
def test_stock_mode_hears_the_same() -> None:
    """faster-whisper as it is, which pads every clip to 30 seconds, is no worse."""
    some = spoken()[:8]

    assert wer(some, (transcribe(whisper(window=False), one.wave)[0] for one in some)) <= 0.12


def test_telephone_is_heard() -> None:
    """Through a telephone's band and its 8 bits at most one word in twelve is wrong."""
    rng = np.random.default_rng(1)
    heard = (augment.through_telephone(torch.from_numpy(one.wave)[None], rng)[0].numpy() for one in spoken())

    assert wer(spoken(), (transcribe(whisper(), wave)[0] for wave in heard)) <= 0.08


def test_speech_over_music_is_heard() -> None:
    """With music in the background, 15 dB below, at most one word in eight is wrong."""
    rng = np.random.default_rng(2)

    def over_music(wave: Wave) -> Wave:
        power = np.sqrt(np.mean(wave[wave != 0] ** 2))
        mixed: Wave = wave + music.melody(rng, len(wave)) * power * np.float32(10 ** (-15 / 20))
        return mixed

    assert wer(spoken(), (transcribe(whisper(), over_music(one.wave))[0] for one in spoken())) <= 0.12


def test_words_have_their_times() -> None:
    """Words begin where espeak-ng says so, to a twentieth of a second or so in the mean."""
    found = evaluate.start_errors(whisper(), spoken())

    assert found["words"] > 40
    assert found["mean_s"] < 0.06


def test_an_order_number_is_written_in_digits() -> None:
    """It comes as the chat model reads it."""
    clip = speak("where is my order 84410", Style())

    assert transcribe(whisper(), case(clip, np.random.default_rng(0)).wave)[0] == "where is my order 84410"


@pytest.mark.parametrize("kind", ["white", "hum", "music", "tones", "clicks", "brown"])
def test_noise_is_no_text(kind: str) -> None:
    """Sounds without speech give no words."""
    wave = augment.KINDS[kind](np.random.default_rng(4), 3 * RATE) * np.float32(0.05)

    assert transcribe(whisper(), wave)[0] == ""


def test_results_are_the_bundled_models() -> None:
    """The figures beside the code were measured with the model that is shipped."""
    results = json.loads(evaluate.RESULTS.read_text())

    assert results["training"] == json.loads((MODEL / "training.json").read_text())
    assert results["scores"]["seen_voices"]["clips"] >= 100
