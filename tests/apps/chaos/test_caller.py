"""A client that speaks: all that it is told is noted, and what had not arrived when it was cut off is said again."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest

from apps.chaos import caller as module
from apps.chaos.caller import Caller
from apps.chaos.line import Line, SessionLost
from apps.chaos.record import Call, fingerprint
from tests.apps.chaos.test_mouth import SOUND, sent

TRANSCRIPTION = "conversation.item.input_audio_transcription."
READY = {"type": "session.updated", "session": {"id": "sess_1"}}
RENEWED = None
"""The connection was lost, and is there again."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call end soon after its last word."""
    monkeypatch.setattr(module, "SETTLED_S", 0.05)
    monkeypatch.setattr(module, "PATIENCE_S", 0.6)


class FakeLine:
    """A line on which `events` come, one after the other, and then nothing."""

    session = "sess_1"

    def __init__(self, events: Iterable[Mapping[str, Any] | None]) -> None:
        self._events = list(events)
        self.put_in: list[dict[str, Any]] = []
        self.marks: list[int] = []
        self.caller: Caller

    async def open(self) -> None:
        """Begin a session."""
        self.caller.connected(0)

    async def close(self) -> None:
        """Hang up."""

    async def put(self, event: dict[str, Any]) -> None:
        """Take an event."""
        self.put_in.append(event)

    async def next(self) -> dict[str, Any] | None:
        """Give the next event."""
        if self._events:
            await asyncio.sleep(0.01)
            event = self._events.pop(0)
            if event is RENEWED:
                self.caller.connected(1)
            if event is RENEWED or event.get("resumed"):
                self.marks.append(len(self.put_in))
            return None if event is None else dict(event)
        await asyncio.sleep(60)
        raise AssertionError


async def played(line: FakeLine, *, turns: int = 0) -> Call:
    """What is noted of a call on `line`."""
    noted = Call(3, 0, 0.0)
    line.caller = Caller(cast(Line, line), noted, lambda: 1.5, SOUND, turns)
    async with asyncio.timeout(10):
        await line.caller.play()
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


def answer(*pieces: bytes, status: str = "completed", **more: Any) -> list[dict[str, Any]]:
    """All that a client is told of an answer that is spoken."""
    output = [{"content": [{"type": "output_audio", "transcript": "A tent."}]}]
    return [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "conversation.item.added", "item": {"id": "item_answer", "role": "assistant"}},
        {"type": "response.output_audio_transcript.delta", "response_id": "resp_1", "delta": "A "},
        {"type": "response.output_audio_transcript.delta", "response_id": "resp_1", "delta": "tent."},
        *({"type": "response.output_audio.delta", "response_id": "resp_1", "delta": _coded(one)} for one in pieces),
        {"type": "response.output_audio.done", "response_id": "resp_1"},
        {"type": "response.done", "response": {"id": "resp_1", "status": status, "output": output, **more}},
    ]


def _coded(sound: bytes) -> str:
    return b64encode(sound).decode()


async def test_all_that_a_caller_is_told_is_noted() -> None:
    """The turn with its place and words, and the answer with its transcript, its sound and its end."""
    noted = await played(line := FakeLine([READY, *turn("item_1", "hello"), *answer(b"abcd", b"ef")]))

    (heard,) = noted.turns.values()
    assert (heard.item, heard.starts, heard.stops, heard.committed, heard.added) == ("item_1", [100], [900], 1, 1)
    assert (heard.pieces, heard.finals, heard.text, heard.at) == (["hello"], ["hello"], "hello", 1.5)
    (got,) = noted.answers.values()
    assert (got.words, got.said, got.ends, got.closed, got.samples) == (["A ", "tent."], "A tent.", ["completed"], 1, 3)
    assert [(piece.at, piece.end) for piece in got.pieces] == [(1.5, 2), (1.5, 3)]
    assert got.pieces[-1].digest == fingerprint(b"abcdef").digest()
    assert (noted.session, noted.error, noted.via) == ("sess_1", "", [(1.5, 0)])
    assert line.put_in[0]["session"]["output_modalities"] == ["audio"]


async def test_what_comes_twice_is_noted_twice() -> None:
    """Nothing is taken for the same here: judging comes later."""
    noted = await played(FakeLine([READY, *turn("item_1", "hello") * 2, *answer(b"ab", b"ab"), answer()[-1]]))

    (heard,), (got,) = noted.turns.values(), noted.answers.values()
    assert (len(heard.starts), heard.committed, heard.added, heard.finals) == (2, 2, 2, ["hello", "hello"])
    assert (got.ends, got.samples) == (["completed", "completed"], 2)


async def test_what_fails_is_noted_with_its_reason() -> None:
    """A turn without a transcript is over, too, and so is an answer; an error is the call's."""
    why = {"code": "transcription_failed", "message": "no"}
    failed = [*turn("item_1", "")[:4], {"type": TRANSCRIPTION + "failed", "item_id": "item_1", "error": why}]
    put_off = answer(status="failed", status_details={"error": {"code": "log_unavailable"}})
    noted = await played(
        FakeLine([READY, *failed, *put_off, {"type": "error", "error": {"code": "c", "message": "m"}}])
    )

    (heard,), (got,) = noted.turns.values(), noted.answers.values()
    assert (heard.error, heard.finals, noted.error) == ("transcription_failed: no", [""], "c: m")
    assert (got.put_off, got.code) == (True, "log_unavailable")


@pytest.mark.parametrize(
    "events",
    [turn("item_1", "")[:5], answer()[:1], turn("item_1", "a question")],
    ids=["transcript", "end of the answer", "answer"],
)
async def test_a_call_waits_for_what_is_under_way_and_not_for_ever(events: list[dict[str, Any]]) -> None:
    """What does not come is told in the end."""
    with pytest.raises(SessionLost, match="nothing was heard"):
        await played(FakeLine([READY, *events]))


async def test_a_call_waits_for_the_turns_that_are_known_to_be_in_it() -> None:
    """The worker that hears them may have died before it told of the last one."""
    await played(FakeLine([READY, *turn("item_1", "a"), *turn("item_2", "b"), *answer()]), turns=2)
    with pytest.raises(SessionLost):
        await played(FakeLine([READY, *turn("item_1", "a"), *answer()]), turns=2)


async def test_what_had_not_arrived_is_said_again() -> None:
    """The gateway has the first 100 ms; nothing is sent before it has said so."""
    resumed = {**READY, "resumed": True, "input_audio_ms": 100}
    silence = [{"type": "rate_limits.updated"}] * 25
    noted = await played(
        line := FakeLine([READY, *silence, RENEWED, *silence[:10], resumed, *turn("item_1", ""), *answer()])
    )

    lost, back = line.marks
    before, after = sent(line.put_in[:lost]), sent(line.put_in[back:])
    whole = SOUND.ljust(len(SOUND) + len(before) + len(after), b"\0")
    assert lost == back
    assert before == whole[: len(before)]
    assert after == whole[4800 : 4800 + len(after)]
    assert noted.again == len(before) // 2 - 2400 > 0
    assert [gateway for _, gateway in noted.via] == [0, 1]


async def test_a_session_that_was_not_configured_is_configured_again() -> None:
    """The connection was lost before the answer came."""
    noted = await played(line := FakeLine([RENEWED, READY, *turn("item_1", "a"), *answer()]))

    assert [event["type"] for event in line.put_in[:2]] == ["session.update"] * 2
    assert noted.error == ""


async def test_errors_that_say_to_come_back_are_none() -> None:
    """The connection ends behind them, and is renewed."""
    away = {"type": "error", "error": {"code": "resume_unavailable", "message": "later"}}
    noted = await played(FakeLine([READY, away, RENEWED, {**READY, "resumed": True}, *turn("item_1", "a"), *answer()]))

    assert noted.error == ""
