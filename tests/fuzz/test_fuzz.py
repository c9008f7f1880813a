"""A little of the fuzzing each time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

INPUTS = 200


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_from_outside_raises_what_nobody_foresaw(target: Target) -> None:
    """Whatever comes: each target takes it, or refuses it by its own error."""

    @settings(max_examples=INPUTS // target.cost, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def thrown(data: st.DataObject) -> None:
        target.take(data.draw(target.inputs))

    thrown()
