from __future__ import annotations

import pytest

from pipeline.voice import Detection
from stages.preprocess.speech.ear import FRAME
from stages.preprocess.speech.endpoint import QUIET, SOONEST_QUIET, TRAIL_MS, heard, limits, ms


@pytest.mark.parametrize("silence_ms", [100, 200, 300, 500, 700, 1000, 1333, 8000])
def test_silence_is_counted_from_the_end_of_the_speech(silence_ms: int) -> None:
    """Not from the end of the network's last word on it: in whole frames, the nearest."""
    silence = heard(silence_ms)
    assert silence % FRAME == 0
    assert abs(silence + ms(TRAIL_MS) - ms(silence_ms)) <= FRAME / 2


@pytest.mark.parametrize("silence_ms", [0, 10, TRAIL_MS])
def test_some_silence_is_always_needed(silence_ms: int) -> None:
    """However little is asked for."""
    assert heard(silence_ms) == FRAME


@pytest.mark.parametrize(
    ("detection", "frames"),
    [
        (Detection(silence_ms=100), 3),
        (Detection(silence_ms=200), 3),
        (Detection(silence_ms=300), 4),
        (Detection(eagerness="high"), 5),
        (Detection(), 7),
        (Detection(silence_ms=5000), 7),
        (Detection(eagerness="low"), 7),
    ],
)
def test_what_was_said_is_asked_in_time(detection: Detection, frames: int) -> None:
    """Half of the silence is left for the answer, within bounds: a stop consonant is no pause."""
    quiet = limits(detection).quiet
    assert quiet == frames * FRAME
    assert SOONEST_QUIET <= quiet <= QUIET


def test_a_turn_that_ends_by_its_silence_needs_no_words() -> None:
    """With an eagerness it is known only by them how long the silence has to be."""
    plain, eager = limits(Detection()), limits(Detection(eagerness="medium"))
    assert plain.reached(heard(500) - FRAME, "", "en") is False
    assert plain.reached(heard(500), None, "en") is True
    assert eager.reached(heard(600) - FRAME, "what time is it", "en") is False
    assert eager.reached(heard(600), None, "en") is None
    assert eager.reached(heard(600), "what time is it", "en") is True
    assert eager.reached(heard(600), "i want to go and", "en") is False
    assert eager.reached(heard(4000), "i want to go and", "en") is True
