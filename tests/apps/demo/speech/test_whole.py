"""The bundled ear in the whole speech stage."""

import numpy as np
import pytest

from apps.demo.speech import whole
from apps.demo.speech.convert import BOUNDS, MODEL
from apps.demo.speech.evaluate import case
from apps.demo.speech.synthesis import speak
from stages.postprocess.speak.espeak import Style
from stages.preprocess.speech.judgement import Bounds, bounds


def test_the_bundled_model_says_what_to_believe() -> None:
    """The bounds that were measured stand in its folder, and the stage reads them."""
    assert bounds(MODEL) == Bounds(*BOUNDS.values())


@pytest.mark.parametrize("text", ["yes", "no", "yes please", "no thanks", "hello", "what time do you open"])
def test_short_answers_are_heard(text: str) -> None:
    """Nothing that was said is taken for noise."""
    (told,) = whole.listen(MODEL, [case(speak(text, Style()), np.random.default_rng(0)).wave])

    assert told == whole.Told(1, [text])


@pytest.mark.parametrize("make", [whole.strings, whole.chips, whole.wobble, whole.siren, whole.wind, whole.applause])
def test_music_gives_no_text(make: whole.Make) -> None:
    """Not a word, whether or not it passes for speech with the voice detection."""
    (told,) = whole.listen(MODEL, [make(np.random.default_rng(3), 15)])

    assert told.texts == []


def test_some_music_is_taken_for_speech() -> None:
    """So that it is the recogniser that has to tell, or the test above would show nothing."""
    wobble, siren = (make(np.random.default_rng(3), 15) for make in (whole.wobble, whole.siren))

    assert all(told.turns for told in whole.listen(MODEL, [wobble, siren]))
