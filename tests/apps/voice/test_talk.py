"""A spoken exchange, with sound files for a microphone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apps.voice import talk as module
from apps.voice.audio import UnreadableAudio, whole
from apps.voice.client import call
from apps.voice.exchange import ExchangeFailed, NothingHeard, last_loud, session_of
from apps.voice.talk import Script, Talk
from tests.apps.voice.fake import Ears, Gateway
from tests.apps.voice.sounds import RATE, silence, tone, wav


async def held(gateway: Gateway, script: Script) -> Talk:
    """Hold the exchange, and return it."""
    talk = await Talk.prepared(script)
    async with gateway.serving() as url, call(url, session_of()) as line:
        await talk.hold(line)
    return talk


@pytest.fixture
def question(tmp_path: Path) -> str:
    """Give a file with a question, and some silence after it."""
    return str(wav(tmp_path / "question.wav", tone(0.3) + silence(0.1)))


async def test_what_was_said_and_answered_is_written(
    question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transcript and reply go to the output, times elsewhere, and the reply's sound into a file."""
    talk = await held(Gateway("how much is it"), Script((question,)))
    talk.write_reply(tmp_path / "reply.wav")
    said = capsys.readouterr()
    assert said.out == "> how much is it\nIt is ninety euros.\n"
    assert "after the end of speech: final" in said.err
    assert whole(str(tmp_path / "reply.wav")) == tone(0.4)


async def test_the_times_count_from_the_end_of_the_speech(question: str) -> None:
    """The silence after which a turn ends is in them, and each step comes after the one before."""
    talk = await held(Gateway("how much is it"), Script((question,)))
    (reply,) = talk.figures()
    final, token, audio = (reply["latencies_s"][name] for name in ("final", "first token", "first audio"))
    assert 0.2 <= final <= token <= audio
    assert (reply["status"], reply["seconds"], reply["heard_seconds"]) == ("completed", 0.4, 0.4)


async def test_a_conversation_waits_for_each_reply(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The next thing is said when the reply has been heard to its end, written lines come last."""
    gateway = Gateway("one", "two", answer="Yes.")
    talk = await held(gateway, Script((question, question), text=("three",)))
    assert capsys.readouterr().out == "> one\nYes.\n> two\nYes.\n> three\nYes.\n"
    assert [one["status"] for one in talk.figures()] == ["completed"] * 3
    assert gateway.sessions[0].truncated == []


async def test_a_reply_is_interrupted(question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not heard of it is cut: in the gateway's memory, in the figures and in the file."""
    barge_in = str(wav(tmp_path / "no.wav", tone(0.3)))
    gateway = Gateway("tell me all", "stop", answers_s=(5.0, 0.2))
    script = Script((question,), barge_in=barge_in, after_s=0.5)

    talk = await held(gateway, script)
    first, second = talk.figures()
    assert (first["status"], second["status"]) == ("cancelled", "completed")
    assert 0.4 < first["heard_seconds"] < 2.0
    (heard_ms,) = gateway.sessions[0].truncated
    assert heard_ms == pytest.approx(1000 * first["heard_seconds"], abs=1)
    talk.write_reply(tmp_path / "reply.wav")
    written = len(whole(str(tmp_path / "reply.wav"))) / 2 / RATE
    assert written == pytest.approx(first["heard_seconds"] + 0.2, abs=0.001)
    said = capsys.readouterr()
    assert "cancelled: turn_detected" in said.err
    assert "silenced" in said.err
    assert said.out.startswith("> tell me all\n")


async def test_a_gateway_that_does_not_speak(question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its reply is text, and no file is made of it."""
    talk = await held(Gateway("how much is it", answers_s=(0.0,)), Script((question,)))
    talk.write_reply(tmp_path / "reply.wav")
    said = capsys.readouterr()
    assert said.out == "> how much is it\nIt is ninety euros.\n"
    assert "does not speak" in said.err
    assert not (tmp_path / "reply.wav").exists()


async def test_no_speech_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in which nobody speaks has no reply, and the error says whose fault that is."""
    monkeypatch.setattr(module, "HEARD_S", 0.2)
    path = str(wav(tmp_path / "hush.wav", silence(0.1)))
    with pytest.RaisesGroup(pytest.RaisesExc(NothingHeard, match=r"hush\.wav.*taken for speech")):
        await held(Gateway(), Script((path,)))


async def test_a_reply_that_fails_is_told(question: str) -> None:
    """With the gateway's own reason."""
    gateway = Gateway("how much is it")
    gateway.status, gateway.details = "failed", {"type": "failed", "error": {"message": "the model has caught fire"}}
    with pytest.RaisesGroup(pytest.RaisesExc(ExchangeFailed, match="caught fire")):
        await held(gateway, Script((question,)))


async def test_a_refusal_ends_the_exchange(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway cannot do is not waited for."""

    async def refuse(ears: Ears, sound: bytes) -> None:
        await ears.tell("error", error={"message": "this gateway is deaf"})
        await asyncio.sleep(0.05)

    monkeypatch.setattr(Ears, "hear", refuse)
    with pytest.RaisesGroup(pytest.RaisesExc(ExchangeFailed, match="deaf")):
        await held(Gateway(), Script((question,)))


async def test_files_are_read_before_anything_is_said(question: str, tmp_path: Path) -> None:
    """A missing one is no surprise in the middle of a conversation."""
    with pytest.raises(UnreadableAudio, match="missing"):
        await Talk.prepared(Script((question, str(tmp_path / "missing.wav"))))


def test_speech_ends_at_its_last_loud_sample() -> None:
    """Whatever silence comes after it, and wherever there is none."""
    assert last_loud(tone(0.5) + silence(1)) == pytest.approx(0.5 * RATE, abs=100)
    assert last_loud(silence(1)) == 0
    assert last_loud(b"") == 0
