"""What the settings make of the speak stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from apps.parts import loaded_for
from apps.settings import Settings, SpeakSettings, StageSettings, load_settings
from apps.speaking import loaded_speak
from pipeline.errors import ModelLoadError, SettingsError
from pipeline.topics import SPEECH_OUT
from tests.stages.postprocess.speak.fakes import sentences, spoken


async def test_stage_as_it_is_without_settings() -> None:
    """espeak-ng speaks; the stage is one for the loop, with the concurrency and the span that were set."""
    registry = CollectorRegistry()
    async with loaded_speak(SpeakSettings(), registry) as parts:
        stage = parts.chained(["speak"], StageSettings(concurrency=7, span=90))
        heard = await spoken(parts.speak, sentences("One."))

    assert (stage.name, stage.reads, stage.concurrency, stage.span) == ("speak", SPEECH_OUT, 7, 90)
    assert sum(len(message.data) for _, message in heard) > 10_000
    assert heard[-1][1].problem is None
    assert registry.get_sample_value("penstock_speak_audio_seconds_total")


async def test_settings_reach_the_voice() -> None:
    """Language, rate and lead come from the settings, and from the environment."""
    environ = {"PENSTOCK_SPEAK_VOICE": "de+f3", "PENSTOCK_SPEAK_RATE": "350", "PENSTOCK_SPEAK_LEAD_S": "30"}
    settings = load_settings(environ).settings.speak
    async with loaded_speak(SpeakSettings(lead_s=30)) as usual, loaded_speak(settings) as parts:
        text = "Guten Tag, das ist ein Satz."
        slow, fast = [await spoken(one.speak, sentences(text)) for one in (usual, parts)]

    length = [sum(len(message.data) for _, message in heard) for heard in (slow, fast)]
    assert length[1] < 0.7 * length[0]


async def test_a_worker_of_its_own_loads_nothing_else() -> None:
    """`penstock stage speak` needs no model of another stage."""
    settings = Settings(speak=SpeakSettings(voice="en"))
    registry = CollectorRegistry()
    async with loaded_for(["speak"], settings, tell=lambda what, share: None, registry=registry) as parts:
        assert parts.problem() == ""
        assert parts.busy_since() is None
        assert parts.chained(["speak"], StageSettings()).name == "speak"


@pytest.mark.parametrize(
    ("speak", "error", "why"),
    [
        ({"voice": "en-uss"}, ModelLoadError, "en-us"),
        ({"engine": "none"}, SettingsError, "speak.engine"),
        ({"engine": "piper"}, SettingsError, "speak.voice"),
        ({"engine": "piper", "voice": "nowhere.onnx"}, ModelLoadError, "no voice"),
        ({"engine": "openai"}, SettingsError, "speak.base_url"),
        ({"engine": "openai", "base_url": "ftp://x"}, SettingsError, "speak.base_url"),
        ({"engine": "openai", "base_url": "http://a:b@x/v1"}, SettingsError, "password"),
    ],
)
async def test_what_cannot_speak_stops_the_start(speak: dict[str, Any], error: type[Exception], why: str) -> None:
    """What is missing or wrong is told with the name of its setting, or of what is not there."""
    with pytest.raises(error, match=why):
        async with loaded_speak(SpeakSettings(**speak)):
            pass


async def test_server_of_the_settings(tmp_path: Path) -> None:
    """A server is not asked before there is something to say."""
    key = tmp_path / "key"
    key.write_text("sk-1")
    environ = {
        "PENSTOCK_SPEAK_ENGINE": "openai",
        "PENSTOCK_SPEAK_BASE_URL": "http://127.0.0.1:9/v1/",
        "PENSTOCK_SPEAK_API_KEY": f"file:{key}",
    }
    async with loaded_speak(load_settings(environ).settings.speak) as parts:
        ((_, last),) = await spoken(parts.speak, sentences("One."))

    assert last.problem.code == "speech_failed"
