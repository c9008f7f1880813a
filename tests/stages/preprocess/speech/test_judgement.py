"""What of a Whisper's words is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import ModelLoadError
from stages.preprocess.speech.judgement import GENERATION, Bounds, Spoken, bounds, repetitive


def test_openais_rule() -> None:
    """Probable silence with improbable words is none, nor are words as improbable as can be."""
    usual = Bounds()
    assert Spoken([1], -0.3, 0.9).believable(usual)
    assert Spoken([1], -1.5, 0.1).believable(usual)
    assert not Spoken([1], -1.5, 0.9).believable(usual)
    assert not Spoken([1], -2.5, 0.0).believable(usual)


def test_a_model_that_is_always_sure_goes_by_its_silence() -> None:
    """With a bound of 0 no word is likely enough where silence is."""
    sure = Bounds(silence=0.3, unlikely=0.0)
    assert Spoken([1], -0.01, 0.2).believable(sure)
    assert not Spoken([1], -0.01, 0.4).believable(sure)


def test_a_models_own_bounds(tmp_path: Path) -> None:
    """They stand where transformers has them; what is missing, or null, is as usual."""
    assert bounds(tmp_path) == bounds(tmp_path / "none") == Bounds()
    told = {"no_speech_threshold": 0.4, "logprob_threshold": None, "suppress_tokens": [1]}
    (tmp_path / GENERATION).write_text(json.dumps(told))
    assert bounds(tmp_path) == Bounds(silence=0.4)
    (tmp_path / GENERATION).write_text(json.dumps({"logprob_threshold": 0, "logprob_floor": -0.7}))
    assert bounds(tmp_path) == Bounds(unlikely=0.0, hopeless=-0.7)


@pytest.mark.parametrize("text", ["{", "[]", '{"no_speech_threshold": "much"}'])
def test_bounds_that_are_none(tmp_path: Path, text: str) -> None:
    """The error names the folder and the file."""
    (tmp_path / GENERATION).write_text(text)
    with pytest.raises(ModelLoadError, match=f"{tmp_path}.*{GENERATION}"):
        bounds(tmp_path)


def test_what_repeats_itself_is_known() -> None:
    """As zlib shrinks it."""
    assert repetitive("thank you " * 20)
    assert not repetitive("i would like to cancel my order because it was too late")
