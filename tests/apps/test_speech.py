from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from apps import speech
from apps.parts import loaded_for
from apps.settings import AsrSettings, Settings, StageSettings
from apps.speech import Deaf, hearing, load_ears, loaded_speech
from pipeline.errors import ModelLoadError
from pipeline.voice import Sound, SpeechStopped, Transcribed
from tests.stages.preprocess.speech.fakes import PUSH, sounds, stream, tone


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the bundled model away."""
    monkeypatch.setattr(speech, "BUNDLED", tmp_path / "asr")


@pytest.mark.usefixtures("no_bundle")
async def test_without_the_bundled_model_a_stage_does_not_start() -> None:
    """It says what is missing, and what to do."""
    with pytest.raises(ModelLoadError, match="--asr"):
        await load_ears(AsrSettings())


@pytest.mark.usefixtures("no_bundle")
async def test_without_the_bundled_model_text_is_served(caplog: pytest.LogCaptureFixture) -> None:
    """Where speech is only one thing of several it is told, and each turn of speech is refused by name."""
    with caplog.at_level(logging.WARNING):
        ears = await load_ears(AsrSettings(), needed=False)
    assert isinstance(ears.recogniser, Deaf)
    assert "--asr" in caplog.text
    spoken = sounds(tone(1, 300), PUSH)
    messages = [*spoken, Sound("s", "audio_1", 24_000, b"", PUSH, "commit", "a")]
    async with hearing(ears._replace(vad=_Loud()), AsrSettings()) as parts:
        told = await _all(parts.speech(stream(messages)))
    assert [type(one) for one in told] == [Transcribed]
    assert told[0].problem.code == "transcription_unavailable"


@pytest.mark.parametrize("name", ["enormous", "/no/such/folder"])
async def test_a_model_that_is_not_there_is_named(name: str) -> None:
    """The start ends with its name and why."""
    with pytest.raises(ModelLoadError, match=name):
        await load_ears(AsrSettings(model=name), needed=False)


async def test_none_is_no_model() -> None:
    """Whoever wants no recognition loads none."""
    async with loaded_speech(AsrSettings(model="none")) as parts:
        assert parts.name == "none"
        assert parts.busy_since() is None
        assert parts.problem() == ""
        stage = parts.chained(("speech",), StageSettings(concurrency=3, span=7))
        assert (stage.name, stage.concurrency, stage.span) == ("speech", 3, 7)


async def test_a_worker_loads_what_its_stage_needs() -> None:
    """The speech stage needs no chat model, and tells its own metrics."""
    registry = CollectorRegistry()
    settings = Settings(asr=AsrSettings(model="none"))
    async with loaded_for(("speech",), settings, tell=lambda *_: None, registry=registry) as parts:
        assert parts.chained(("speech",), StageSettings()).name == "speech"
        assert registry.get_sample_value("penstock_speech_queue_pieces", {"kind": "final"}) == 0


class _Loud:
    """Takes everything for speech."""

    def listen(self, windows: Any, memory: Any) -> Any:
        """See `Vad`."""
        return np.ones(len(windows), np.float32), memory


async def _all(told: AsyncGenerator[Any, None]) -> list[Any]:
    async with asyncio.timeout(10):
        return [one async for one in told if isinstance(one, Transcribed | SpeechStopped)]
