"""The programs over the real pipe in one process: gateway, bus and speech stage, with a recogniser that hears tones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apps import speech
from apps.settings import Settings
from apps.speech import Ears
from apps.voice.audio import opened
from apps.voice.captions import as_json, srt
from apps.voice.client import call
from apps.voice.here import transcriber
from apps.voice.transcribe import Job, session_of
from tests.apps.voice.sounds import silence, wav
from tests.stages.preprocess.speech.fakes import GAP_S, WORD_S, PowerVad, ToneRecogniser, say

DEADLINE_S = 40
RAPID = 8


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> ToneRecogniser:
    """Have the speech stage hear words in tones."""
    recogniser = ToneRecogniser()
    monkeypatch.setattr(speech, "_load", lambda asr, needed: Ears(PowerVad(), recogniser))
    return recogniser


@asynccontextmanager
async def job_of() -> AsyncGenerator[Job, None]:
    """A job over a pipe of its own."""
    async with (
        asyncio.timeout(DEADLINE_S),
        transcriber(Settings()) as url,
        call(url, session_of("en"), intent="transcription") as line,
    ):
        yield Job(line)


async def run(job: Job, path: Path) -> list[str]:
    """Transcribe the file; what it looked like on the way."""
    seen: list[str] = []
    with opened(str(path)) as recording:
        await job.run(recording, lambda one: seen.append(one.text), lambda seconds: None, realtime=False)
    return seen


async def test_a_recording_through_the_real_pipe(tmp_path: Path, tones: ToneRecogniser) -> None:
    """Two utterances, each with its words and their times, whatever the last one ends with."""
    first, second = say("what time is it").tobytes(), say("i want to go home").tobytes()
    path = wav(tmp_path / "a.wav", silence(0.5) + first + silence(1.5) + second)
    async with job_of() as job:
        await run(job, path)
    transcript = job.transcript
    assert transcript.text == "what time is it i want to go home"
    assert transcript.language == "en"
    assert transcript.seconds == pytest.approx(4.34, abs=0.01)
    words = [word for one in transcript for word in one.timed()]
    step = WORD_S + GAP_S
    starts = [0.5 + n * step for n in range(4)] + [2 + 4 * step + n * step for n in range(5)]
    assert [word.start for word in words] == pytest.approx(starts, abs=0.05)
    assert all(0 < word.end - word.start < step for word in words)
    assert srt(transcript).count("-->") == 2
    assert [len(one["words"]) for one in json.loads(as_json(transcript))["segments"]] == [4, 5]


async def test_silence_through_the_real_pipe(tmp_path: Path, tones: ToneRecogniser) -> None:
    """Nothing is said, and that is told; the recogniser was not even asked."""
    async with job_of() as job:
        await run(job, wav(tmp_path / "a.wav", silence(2)))
    assert job.transcript.text == ""
    assert tones.tasks == []


async def test_a_long_recording_through_the_real_pipe(tmp_path: Path, tones: ToneRecogniser) -> None:
    """Every utterance of minutes is there once, in its order, and it takes less than its own time."""
    spoken = b"".join(say(f"{word} please").tobytes() + silence(3) for word in ("one", "two", "three") * RAPID)
    async with job_of() as job:
        await run(job, wav(tmp_path / "a.wav", spoken))
    assert [one.text for one in job.transcript if one.text] == ["one please", "two please", "three please"] * RAPID


async def test_a_recogniser_that_fails_is_told(tmp_path: Path, tones: ToneRecogniser) -> None:
    """Each utterance says why it has no words, and the rest goes on."""
    tones.fails = RuntimeError("out of memory")
    async with job_of() as job:
        await run(job, wav(tmp_path / "a.wav", say("what time is it").tobytes() + silence(1)))
    assert [one.problem for one in job.transcript if one.problem]
    assert job.transcript.text == ""
