"""When sound may be published; the clock is in the test's hands."""

from __future__ import annotations

import pytest

from pipeline.voice import RATE
from stages.postprocess.speak.pace import Pace

SECOND = RATE


def test_lead_goes_at_once_and_the_rest_as_it_is_heard() -> None:
    """What is heard within the lead need not wait; what comes later waits until it is so long ahead."""
    pace = Pace(0.5)

    assert [pace.wait(position, 100.0, 100.0) for position in (0, SECOND // 2, SECOND)] == [0.0, 0.0, 0.5]
    assert pace.wait(2 * SECOND, 100.0, 100.5) == 1.0
    assert pace.stalls == 0


def test_slow_synthesis_shifts_what_follows() -> None:
    """Where the voice was slow, all had been heard: only the lead of the rest comes at once."""
    pace = Pace(0.5)
    pace.wait(0, 100.0, 100.0)
    pace.wait(SECOND, 100.0, 100.5)

    assert pace.wait(2 * SECOND, 100.0, 105.0) == 0.0
    assert pace.wait(3 * SECOND, 100.0, 105.0) == pytest.approx(0.5)
    assert pace.stalls == 1


def test_first_sound_is_no_stall() -> None:
    """An answer begins to be heard when its first sound is there, however long the voice took for that."""
    pace = Pace(0.5)

    assert pace.wait(0, 100.0, 100.9) == 0.0
    assert pace.wait(SECOND, 100.0, 100.9) == pytest.approx(0.5)
    assert pace.stalls == 0


def test_who_has_caught_up_is_like_any_other() -> None:
    """After another's death what has been due goes at once; from then on what comes late shifts the rest."""
    pace = Pace(0.5)

    assert [pace.wait(n * SECOND, 100.0, 105.0) for n in range(6)] == [0.0] * 6
    assert pace.wait(6 * SECOND, 100.0, 105.0) == 0.5
    assert pace.wait(7 * SECOND, 100.0, 110.0) == 0.0
    assert pace.wait(8 * SECOND, 100.0, 110.0) == pytest.approx(0.5)


def test_clock_that_is_behind_delays_nothing() -> None:
    """A sentence that seems to be said in the future is said now."""
    pace = Pace(0.5)

    assert pace.wait(0, 107.0, 100.0) == 0.0
    assert pace.wait(SECOND, 107.0, 100.0) == pytest.approx(0.5)


def test_what_nobody_has_heard() -> None:
    """Of what was published that is what is ahead of the listener, and never more than all of it."""
    pace = Pace(0.5)
    assert pace.unheard(0, 100.0) == 0.0
    assert pace.needed(0, 99.0) == 99.0
    pace.wait(0, 100.0, 100.0)

    assert pace.unheard(2 * SECOND, 101.5) == pytest.approx(0.5)
    assert pace.unheard(2 * SECOND, 99.0) == 2.0
    assert pace.unheard(2 * SECOND, 150.0) == 0.0
    assert pace.needed(3 * SECOND, 101.0) == 103.0
