"""The programs with the bundled models: real speech by espeak-ng, real transcripts, real answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apps.bench.voice_clips import demo_clips
from apps.bench.voice_score import error_rate
from apps.settings import Settings
from apps.voice.audio import opened, whole, write_wav
from apps.voice.client import call
from apps.voice.exchange import session_of as exchange_session
from apps.voice.here import speaker, transcriber
from apps.voice.talk import Script, Talk
from apps.voice.transcribe import Job, session_of
from tests.apps.voice.sounds import RATE, silence

DEADLINE_S = 100
MOST_WRONG = 0.25
"""Of words: the model is small, and this is no measurement."""


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_speech_is_transcribed(tmp_path: Path) -> None:
    """What espeak-ng says is what stands there, utterance by utterance, in the order and at the times of the words."""
    clips = demo_clips(6)
    path = tmp_path / "spoken.wav"
    write_wav(path, b"".join(clip.sound + silence(1) for clip in clips))
    async with (
        asyncio.timeout(DEADLINE_S),
        transcriber(Settings()) as url,
        call(url, session_of(), intent="transcription") as line,
    ):
        job = Job(line)
        with opened(str(path)) as recording:
            await job.run(recording, lambda one: None, lambda seconds: None, realtime=False)
    heard = [one for one in job.transcript if one.text]
    assert error_rate([" ".join(clip.text for clip in clips)], [job.transcript.text]).wer < MOST_WRONG
    assert len(heard) == len(clips)
    begins = 0.0
    for clip, one in zip(clips, heard, strict=True):
        assert begins - 0.3 <= one.timed()[0].start
        assert one.timed()[-1].end <= begins + clip.seconds + 0.3
        begins += clip.seconds + 1


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_question_is_answered_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And interrupted by the next one, the answer is cut."""
    interruption, question = demo_clips(2)
    write_wav(tmp_path / "question.wav", question.sound)
    write_wav(tmp_path / "interruption.wav", interruption.sound)
    script = Script((str(tmp_path / "question.wav"),), barge_in=str(tmp_path / "interruption.wav"), after_s=0.3)
    talk = await Talk.prepared(script)
    async with (
        asyncio.timeout(DEADLINE_S),
        speaker(Settings()) as url,
        call(url, exchange_session("en")) as line,
    ):
        await talk.hold(line)
    first, second = talk.figures()
    assert (first["status"], second["status"]) == ("cancelled", "completed")
    assert first["heard_seconds"] < first["seconds"] or first["heard_seconds"] < 2
    assert second["latencies_s"]["final"] < second["latencies_s"]["first audio"]
    talk.write_reply(tmp_path / "reply.wav")
    sound = whole(str(tmp_path / "reply.wav"))
    assert len(sound) / 2 / RATE == pytest.approx(first["heard_seconds"] + second["heard_seconds"], abs=0.01)
    assert any(sound)
    assert capsys.readouterr().out.count("> ") == 2
