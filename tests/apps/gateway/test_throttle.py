"""What the stages would refuse is refused at the gateway."""

from __future__ import annotations

import random

import pytest

from apps.gateway import throttle as throttle_module
from apps.gateway.refusal import Refusal
from apps.gateway.throttle import Throttle
from pipeline.messages import Problem

BUSY = Problem("overloaded", "the model is busy", retry_after=7.0)
OTHER = Problem("internal_error", "a bug")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    """A throttle with chances that repeat."""
    return Throttle(clock, random.Random(1).random)


def second(throttle: Throttle, clock: Clock, tenant: str, asked: int, room: int) -> tuple[int, int]:
    """Let a tenant ask so often in a second in which the stages have `room`; how many went on and were refused here."""
    on = here = 0
    for _ in range(asked):
        clock.now += 1 / asked
        try:
            throttle.admit(tenant)
        except Refusal:
            here += 1
            continue
        on += 1
        throttle.heard(tenant, None if on <= room else BUSY)
    return on, here


def test_whose_turns_are_taken_is_never_refused(throttle: Throttle, clock: Clock) -> None:
    """However many they are, and however else some fail."""
    for _ in range(5):
        assert second(throttle, clock, "a", asked=500, room=500) == (500, 0)
    for _ in range(500):
        throttle.admit("a")
        throttle.heard("a", OTHER)


def test_of_a_flood_twice_as_much_goes_on_as_is_taken(throttle: Throttle, clock: Clock) -> None:
    """At ten times what there is room for, the stages are spared most of it, and are still kept busy."""
    on, here = [second(throttle, clock, "a", asked=100, room=10) for _ in range(30)][-1]

    assert 15 <= on <= 40
    assert here == 100 - on


def test_another_tenant_is_not_touched(throttle: Throttle, clock: Clock) -> None:
    """One tenant's flood has nothing to do with what another may."""
    for _ in range(10):
        second(throttle, clock, "flood", asked=100, room=10)
        assert second(throttle, clock, "quiet", asked=2, room=2) == (2, 0)


def test_it_ends_with_the_flood(throttle: Throttle, clock: Clock) -> None:
    """Soon after there is room again everything goes on."""
    for _ in range(30):
        second(throttle, clock, "a", asked=100, room=10)
    assert [second(throttle, clock, "a", asked=10, room=10) for _ in range(40)][-1] == (10, 0)


def test_who_is_refused_is_told_what_the_stages_said(throttle: Throttle, clock: Clock) -> None:
    """The code is theirs, and so is the time to come back."""
    second(throttle, clock, "a", asked=200, room=0)
    with pytest.raises(Refusal) as refused:  # noqa: PT012 - some of them go on
        for _ in range(200):
            throttle.admit("a")

    assert (refused.value.code, refused.value.kind) == ("overloaded", "rate_limit_error")
    assert refused.value.retry_after == 7.0


def test_a_few_refusals_are_no_reason(throttle: Throttle) -> None:
    """Somebody who asked three times and was refused three times may ask again."""
    for _ in range(3):
        throttle.admit("a")
        throttle.heard("a", BUSY)
    throttle.admit("a")


def test_tenants_are_forgotten(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are remembered."""
    monkeypatch.setattr(throttle_module, "MOST_TENANTS", 10)
    for number in range(100):
        throttle.admit(f"t{number}")

    assert len(throttle._tenants) == 10
