"""Steady traffic, with clients made up: what is asked how often, and what ends a session."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from apps.chaos import traffic as module
from apps.chaos.line import SessionLost
from apps.chaos.plan import TURNS, Plan
from apps.chaos.record import Turn
from apps.chaos.traffic import Traffic

DEADLINE_S = 10.0
Answer = Callable[[Turn, int], None]


def completed(turn: Turn, _: int) -> None:
    """All goes well."""
    turn.ends, turn.ended = ["completed"], 1.0


def run(monkeypatch: pytest.MonkeyPatch, answer: Answer, plan: Plan) -> tuple[Traffic, list[Turn]]:
    """Traffic whose questions are answered by `answer`, and the turns that are told."""
    told: list[Turn] = []

    class Client:
        def __init__(self, number: int, *_: object, **__: object) -> None:
            self.number = number

        async def open(self) -> None:
            """Begin a session."""

        async def close(self) -> None:
            """End it."""

        async def ask(self, turn: Turn, *, again: int = 0) -> None:
            await asyncio.sleep(0)
            answer(turn, again)

    monkeypatch.setattr(module, "Client", Client)
    monkeypatch.setattr(module, "BACK_S", 0.0)
    return Traffic(plan, ["ws://nowhere"], told.append), told


async def test_every_conversation_is_had_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of clients."""
    traffic, told = run(monkeypatch, completed, Plan(clients=3, scripts=5))
    await asyncio.wait_for(traffic.once(), DEADLINE_S)
    assert Counter(turn.name for turn in told) == Counter(f"{n}.{place}" for n in range(5) for place in range(TURNS))
    assert told == traffic.record.turns
    assert traffic.record.zero > 0


async def test_traffic_goes_on_until_it_is_told_to_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client ends after the turn that it is in."""
    traffic, told = run(monkeypatch, completed, Plan(clients=2, scripts=2))
    asking = asyncio.create_task(traffic.steadily())
    async with asyncio.timeout(DEADLINE_S):
        while len(told) < 50:  # noqa: ASYNC110 (whatever comes first)
            await asyncio.sleep(0)
        traffic.finish()
        await asking
    assert {turn.client for turn in told} == {0, 1}
    assert traffic.record.seconds > 0


async def test_what_is_put_off_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same name, and the session goes on."""

    def at_first_put_off(turn: Turn, again: int) -> None:
        completed(turn, again)
        if not again:
            turn.ends, turn.code = ["failed"], "log_unavailable"

    traffic, told = run(monkeypatch, at_first_put_off, Plan(clients=1, scripts=1))
    await asyncio.wait_for(traffic.once(), DEADLINE_S)
    assert [turn.name for turn in told] == [f"0.{place}" for place in range(TURNS) for _ in range(2)]
    assert [turn.put_off for turn in told] == [True, False] * TURNS


async def test_a_lost_session_ends_at_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows could not be compared; the turn says why, and when."""

    def lost(turn: Turn, _: int) -> None:
        raise SessionLost("no end within 90 s")

    traffic, told = run(monkeypatch, lost, Plan(clients=1, scripts=2))
    await asyncio.wait_for(traffic.once(), DEADLINE_S)
    assert [(turn.name, turn.error) for turn in told] == [("0.0", "no end within 90 s"), ("1.0", "no end within 90 s")]
    assert all(turn.ended is not None for turn in told)


async def test_who_has_no_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that are woken late show that the machine has no time for the rest either."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)

    def slowly(turn: Turn, again: int) -> None:
        completed(turn, again)
        time.sleep(0.05)

    traffic, _ = run(monkeypatch, slowly, Plan(clients=1, scripts=2))
    await asyncio.wait_for(traffic.once(), DEADLINE_S)
    assert 0.03 < traffic.record.late < DEADLINE_S
