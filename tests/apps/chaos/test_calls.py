"""Clients that speak, one recording after the other: what they play is the same in each run."""

from __future__ import annotations

import pytest

from apps.chaos import line
from apps.chaos.calls import SENTENCES, Calls, Recording, counted, recordings
from apps.chaos.plan import Kind, Plan, schedule
from apps.chaos.record import Call, Heard, Record
from pipeline.voice import RATE

PLAYED = Recording(3, bytes(RATE), ("hello",))


async def test_where_nobody_answers_the_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each recording is noted, with the error."""
    monkeypatch.setattr(line, "BACK_S", 0.2)
    record, told = Record(), list[Call]()
    plan = Plan(voices=1)
    callers = Calls(plan, [PLAYED, PLAYED], ["ws://127.0.0.1:1"], record, lambda: 2.0, told.append)
    await callers.once()

    assert record.calls == told
    assert [(one.recording, "no gateway took it" in one.error, one.ended) for one in told] == [(3, True, 2.0)] * 2


async def test_without_recordings_nobody_calls() -> None:
    """A run of text alone has no callers, nor need it know how to synthesise."""
    record = Record()
    assert recordings(Plan()) == ()
    await Calls(Plan(), (), ["ws://127.0.0.1:1"], record, lambda: 0.0, record.calls.append).steadily()
    assert not record.calls


def test_the_turns_of_a_recording_are_known_from_the_undisturbed_run() -> None:
    """Where a worker dies, the last of them may be told late."""
    heard = Call(3, 0, 0.0, turns={name: Heard(name, 0.0) for name in ("item_1", "item_2")})
    assert [one.turns for one in counted([PLAYED, PLAYED._replace(number=4)], Record(calls=[heard]))] == [2, 0]


def test_recordings_are_synthesised_speech_and_always_the_same() -> None:
    """Sentences with rests between, as 16-bit samples; each plan's recordings are different ones."""
    first, second = recordings(Plan(voices=1, recordings=2))

    assert len(first.says) == len(second.says) == SENTENCES
    assert not set(first.says) & set(second.says)
    assert first == recordings(Plan(voices=3, recordings=1))[0]
    assert len(first.sound) % 2 == 0
    assert 3 * SENTENCES < len(first.sound) / 2 / RATE < 12 * SENTENCES
    assert max(first.sound) > 0
    assert first.sound.endswith(bytes(2 * RATE))


def test_with_voices_the_stages_of_voice_are_broken_too() -> None:
    """Besides all others; without voices they do not serve."""
    struck = {(fault.kind, fault.stage) for fault in schedule(Plan(minutes=20, voices=1))}

    assert struck >= {(kind, stage) for kind in (Kind.KILL, Kind.FREEZE) for stage in ("speech", "speak", "llm")}
    assert struck >= {(kind, "") for kind in (Kind.BROKER, Kind.GATEWAY, Kind.LEAVE)}
    assert not {"speech", "speak"} & {fault.stage for fault in schedule(Plan(minutes=20))}
