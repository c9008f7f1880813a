"""Clients that speak: what they play is the same in each run, and what they are told is noted, all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest

from apps.chaos import calls
from apps.chaos.calls import SENTENCES, Caller, Calls, Recording, counted, recordings
from apps.chaos.plan import Kind, Plan, for_voices, schedule
from apps.chaos.record import Call, Record
from apps.voice.client import Arrived, CallLost
from apps.voice.client import Call as Line
from pipeline.errors import SettingsError
from pipeline.voice import RATE

SOUND = bytes(range(256)) * (RATE // 640)
PLAYED = Recording(3, SOUND, ("hello",))
TRANSCRIPTION = "conversation.item.input_audio_transcription."


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call end soon after its last word."""
    monkeypatch.setattr(calls, "SETTLED_S", 0.05)
    monkeypatch.setattr(calls, "LAST_WORDS_S", 0.6)


class FakeLine:
    """A line on which `events` come, one after the other, and then nothing; or which is lost."""

    session = "sess_1"

    def __init__(self, events: Iterable[Mapping[str, Any]] = (), *, lost: bool = False) -> None:
        self._events = [{"event_id": f"event_{n}", **event} for n, event in enumerate(events)]
        self._lost = lost
        self.sound = b""

    async def append(self, sound: bytes) -> None:
        """Take sound."""
        self.sound += sound

    async def next(self) -> Arrived:
        """Give the next event."""
        if self._events:
            return Arrived(time.perf_counter(), self._events.pop(0))
        if self._lost:
            raise CallLost("here", "a test says so")
        await asyncio.sleep(60)
        raise AssertionError


async def played(line: FakeLine, recording: Recording = PLAYED) -> Call:
    """What is noted of a call on `line`."""
    noted = Call(3, 0, 0.0)
    async with asyncio.timeout(10):
        await Caller(cast(Line, line), noted, lambda: 1.5).play(recording)
    return noted


def turn(item: str, text: str) -> list[dict[str, Any]]:
    """All that a client is told of a turn of speech."""
    return [
        {"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": 100},
        {"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": 900},
        {"type": "input_audio_buffer.committed", "item_id": item},
        {"type": "conversation.item.added", "item": {"id": item, "role": "user"}},
        {"type": TRANSCRIPTION + "delta", "item_id": item, "delta": text},
        {"type": TRANSCRIPTION + "completed", "item_id": item, "transcript": text},
    ]


ANSWER = (
    {"type": "response.created", "response": {"id": "resp_1"}},
    {"type": "conversation.item.added", "item": {"id": "item_answer", "role": "assistant"}},
    {"type": "response.done", "response": {"id": "resp_1", "status": "completed"}},
)


async def test_all_that_a_caller_is_told_is_noted() -> None:
    """The turn with its place and words, and the answer with its end; an answer's item is no turn."""
    line = FakeLine([*turn("item_1", "hello"), *ANSWER])
    noted = await played(line)

    (heard,) = noted.turns.values()
    assert (heard.item, heard.starts, heard.stops, heard.committed, heard.added) == ("item_1", [100], [900], 1, 1)
    assert (heard.pieces, heard.finals, heard.text, heard.at) == (["hello"], ["hello"], "hello", 1.5)
    assert (noted.answers, noted.session, noted.error) == ({"resp_1": ["completed"]}, "sess_1", "")
    assert line.sound[: len(SOUND)] == SOUND


async def test_what_comes_twice_is_noted_twice() -> None:
    """Nothing is taken for the same here: judging comes later."""
    again = [*turn("item_1", "hello"), *turn("item_1", "hello"), *ANSWER, {**ANSWER[-1], "event_id": "event_0"}]
    noted = await played(FakeLine(again))

    (heard,) = noted.turns.values()
    assert (len(heard.starts), heard.committed, heard.added, heard.finals) == (2, 2, 2, ["hello", "hello"])
    assert noted.answers == {"resp_1": ["completed", "completed"]}
    assert noted.repeated_events == 1


async def test_what_fails_is_noted_with_its_reason() -> None:
    """A turn without a transcript is over, too, and an error is the call's."""
    why = {"code": "transcription_failed", "message": "no"}
    failed = [*turn("item_1", "")[:4], {"type": TRANSCRIPTION + "failed", "item_id": "item_1", "error": why}]
    noted = await played(FakeLine([*failed, {"type": "error", "error": {"code": "c", "message": "m"}}]))

    (heard,) = noted.turns.values()
    assert (heard.error, heard.finals, noted.error) == ("transcription_failed: no", [""], "c: m")


@pytest.mark.parametrize("missing", [turn("item_1", "")[:5], ANSWER[:1]], ids=["transcript", "end of the answer"])
async def test_a_call_waits_for_what_is_under_way_and_not_for_ever(missing: list[dict[str, Any]]) -> None:
    """What does not come is told in the end."""
    with pytest.raises(TimeoutError):
        await played(FakeLine(missing))


async def test_a_call_waits_for_the_turns_that_are_known_to_be_in_it() -> None:
    """The worker that hears them may have died before it told of the last one."""
    (twice,) = counted([PLAYED], Record(calls=[await played(FakeLine(turn("item_1", "a") + turn("item_2", "b")))]))
    assert twice.turns == 2
    await played(FakeLine(turn("item_1", "a") + turn("item_2", "b")), twice)
    with pytest.raises(TimeoutError):
        await played(FakeLine(turn("item_1", "a")), twice)


async def test_a_lost_line_ends_the_call() -> None:
    """What was said meanwhile nobody could say again."""
    with pytest.raises(CallLost):
        await played(FakeLine(lost=True))


async def test_where_nobody_answers_the_call_says_so() -> None:
    """Each recording is noted, with the error."""
    record, told = Record(), list[Call]()
    plan = Plan(voices=1)
    callers = Calls(plan, [PLAYED, PLAYED], ["ws://127.0.0.1:1"], record, lambda: 2.0, told.append)
    await callers.once()

    assert record.calls == told
    assert [(one.recording, bool(one.error), one.ended) for one in told] == [(3, True, 2.0)] * 2


async def test_without_recordings_nobody_calls() -> None:
    """A run of text alone has no callers, nor need it know how to synthesise."""
    record = Record()
    assert recordings(Plan()) == ()
    await Calls(Plan(), (), ["ws://127.0.0.1:1"], record, lambda: 0.0, record.calls.append).steadily()
    assert not record.calls


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


def test_with_voices_only_workers_are_broken() -> None:
    """The speech stage's, too; without them it does not serve. What was said to a dead gateway is lost with it."""
    plan = for_voices(Plan(minutes=20, voices=1))
    struck = {(fault.kind, fault.stage) for fault in schedule(plan)}

    assert (Kind.KILL, "speech") in struck
    assert {kind for kind, _ in struck} == {Kind.KILL, Kind.PAUSE, Kind.FREEZE, Kind.DRAIN, Kind.REBALANCE}
    assert "speech" not in {fault.stage for fault in schedule(for_voices(Plan(minutes=20)))}
    with pytest.raises(SettingsError, match="only workers are broken"):
        for_voices(Plan(voices=1, kinds=(Kind.BROKER, Kind.GATEWAY)))
