"""The voice bench: what is said, what came of it, and what that comes to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apps.bench import voice, voice_exchange, voice_ours
from apps.bench.voice import Plan
from apps.bench.voice_alone import Alone, Counting
from apps.bench.voice_clips import Clip, demo_clips, folder_clips
from apps.bench.voice_curve import BUDGETS, FAR, Load
from apps.bench.voice_exchange import Step, all_talked, talker
from apps.bench.voice_ours import PATIENCE_S, NotHeard, all_heard, session
from apps.bench.voice_report import aims, exchanged, listened
from apps.bench.voice_score import Heard, Rate, Shown, first_shown
from apps.settings import AsrSettings
from apps.speech import Ears as Loaded
from pipeline.errors import SettingsError
from scripts.readme_voice import voice as readme_voice
from tests.apps.voice.fake import SILENCE_S, Ears, Gateway
from tests.apps.voice.sounds import silence, tone, wav
from tests.stages.preprocess.speech.fakes import PowerVad, ToneRecogniser, say

DEADLINE_S = 20


def clip(text: str, seconds: float = 0.3) -> Clip:
    """A clip in which something is heard, whatever it is."""
    return Clip("x", text, tone(seconds) + silence(0.1), (), seconds)


async def test_a_clip_is_heard_in_real_time() -> None:
    """Words are shown as they come; the final text comes after the silence, however soon the next clip follows."""
    gateway = Gateway("how much is it", "thank you")
    async with gateway.serving() as url, session(url) as mine:
        first, second = await mine.hear(clip("how much is it")), await mine.hear(clip("thank you"))
    assert (first.text, second.text) == ("how much is it", "thank you")
    assert first.final >= 0.3 + SILENCE_S
    assert second.final >= 0.3 + SILENCE_S
    assert "how muc" in [shown.text for shown in first.shown]
    detection = gateway.sessions[0].session["audio"]["input"]["turn_detection"]
    assert detection == {"type": "server_vad", "silence_duration_ms": voice_ours.SILENCE_MS}


async def test_a_pause_is_not_the_end_of_a_clip() -> None:
    """What is said in two turns is heard as one clip, which is final with the second."""
    spoken = Clip("x", "one two", tone(0.2) + silence(0.4) + tone(0.2), (), 0.8)
    async with Gateway("one", "two").serving() as url, session(url) as mine:
        heard = await mine.hear(spoken)
    assert heard.text == "one two"
    assert heard.final >= 0.8 + SILENCE_S


async def test_by_hand_the_end_of_the_clip_ends_the_turn() -> None:
    """A button is let go where the clip ends, and no silence is waited for."""
    gateway = Gateway("how much is it")
    async with gateway.serving() as url, session(url, silence_ms=None) as mine:
        heard = await mine.hear(Clip("x", "", tone(0.3), (), 0.3))
    assert heard.text == "how much is it"
    assert heard.final >= 0.3
    assert gateway.sessions[0].voiced is None
    assert gateway.sessions[0].session["audio"]["input"]["turn_detection"] is None


async def test_what_never_comes_counts_with_the_time_that_was_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip that is not heard at all is not left out."""
    monkeypatch.setattr(voice_ours, "PATIENCE_S", 0.3)
    async with Gateway().serving() as url, session(url) as mine:
        heard = await mine.hear(Clip("x", "hush", silence(0.2), (), 0.2))
    assert heard.text == ""
    assert heard.final == pytest.approx(0.5)


async def test_a_refusal_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to measure at a gateway without ears."""

    async def refuse(ears: Ears, sound: bytes) -> None:
        await ears.tell("error", error={"message": "no model listens"})
        await asyncio.sleep(0.05)

    monkeypatch.setattr(Ears, "hear", refuse)
    with pytest.raises(NotHeard, match="no model listens"):
        async with Gateway().serving() as url, session(url) as mine:
            await mine.hear(clip("x"))


async def test_sessions_share_the_clips() -> None:
    """Each clip is said once, by whoever is free, each in a session of its own."""
    gateway = Gateway(*["yes"] * 4)
    steps: list[None] = []
    async with gateway.serving() as url:
        found = await all_heard(url, [clip("yes", 0.1)] * 4, 2, lambda: steps.append(None))
    assert ([heard.text for _, heard in found], len(steps), len(gateway.sessions)) == (["yes"] * 4, 4, 2)


async def test_what_comes_late_is_not_taken_for_the_next_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a clip that was given up the next one is said in a session of its own."""
    monkeypatch.setattr(voice_ours, "PATIENCE_S", 0.3)
    gateway = Gateway()
    async with gateway.serving() as url:
        hush = Clip("x", "hush", silence(0.1), (), 0.1)
        found = await all_heard(url, [hush] * 3, 1, lambda: None)
        assert [heard.text for _, heard in found] == [""] * 3
        assert len(gateway.sessions) == 3
        monkeypatch.setattr(voice_exchange, "PATIENCE_S", 0.2)
        assert len(await all_talked(url, [hush] * 2, 1, lambda: None)) == 2
    assert len(gateway.sessions) == 5


async def test_an_exchange_counts_from_the_end_of_the_speech() -> None:
    """And each step after the one before, a reply that is not interrupted is heard to its end."""
    async with Gateway("how much is it", "ok").serving() as url:
        (step,) = await all_talked(url, [clip("how much is it")], 1, lambda: None)
    assert SILENCE_S <= step.final <= step.token <= step.audio
    assert step.silenced is None


async def test_an_interruption_counts_from_the_onset_of_its_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence before it in the recording is none of the gateway's."""
    monkeypatch.setattr(voice_exchange, "PLAYED_S", 0.2)
    interruption = Clip("x", "stop", silence(0.3) + tone(0.2), (), 0.5)
    gateway = Gateway("tell me", "stop", answers_s=(3.0, 0.1))
    async with gateway.serving() as url, talker(url) as mine:
        step = await mine.talk(clip("tell me"), interruption)
    assert step.silenced is not None
    assert step.cancelled is not None
    assert 0 <= step.silenced <= step.cancelled


async def test_no_reply_counts_with_the_time_that_was_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speaker who is not answered waits as long."""
    monkeypatch.setattr(voice_exchange, "PATIENCE_S", 0.2)
    async with Gateway().serving() as url, talker(url) as mine:
        assert await mine.talk(Clip("x", "hush", silence(0.1), (), 0.1)) == Step(0.2, 0.2, 0.2)


def test_the_demo_speaks_what_was_held_out() -> None:
    """The same clips each time, with the ends of all words, in order and before the end of the speech."""
    spoken = demo_clips(3)
    assert spoken == demo_clips(3)
    for one in spoken:
        assert len(one.ends) == len(one.text.split()) >= 3
        assert list(one.ends) == sorted(one.ends)
        assert one.ends[-1] == pytest.approx(one.speech_ends, abs=0.3)
        assert one.speech_ends <= one.seconds


def test_a_folder_of_recordings_with_texts(tmp_path: Path) -> None:
    """Each recording has its text beside it; what has none is named."""
    wav(tmp_path / "a.wav", tone(0.2) + silence(0.3))
    (tmp_path / "a.txt").write_text("how much is it\n")
    (one,) = folder_clips(tmp_path, 5)
    assert (one.name, one.text, one.ends) == ("a", "how much is it", ())
    assert one.speech_ends == pytest.approx(0.2, abs=0.01)
    wav(tmp_path / "b.wav", tone(0.2))
    with pytest.raises(SettingsError, match=r"b\.wav has no text in b\.txt"):
        folder_clips(tmp_path, 5)
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(SettingsError, match=r"b\.txt has no words"):
        folder_clips(tmp_path, 5)
    with pytest.raises(SettingsError, match="no recordings"):
        folder_clips(tmp_path.parent, 5)


def test_times_count_from_speech() -> None:
    """The first word from its beginning, lags from the words' ends, the final from the end of the speech."""
    said = Clip("x", "how much", silence(2), (0.5, 1.0), 1.1)
    found = listened([(said, Heard((Shown(0.7, "how"),), "how much", 1.6))])
    assert found.rate == (2, 0, 0.0)
    assert found.first.p50 == pytest.approx(700)
    assert found.final.p50 == pytest.approx(500)
    assert found.lag is not None
    assert found.lag.max == pytest.approx(600)


def test_aims_are_judged_by_the_median() -> None:
    """The configured silence is taken off the final; what was not measured is not judged."""
    said = Clip("x", "how much", silence(2), (0.5, 1.0), 1.0)
    way = listened([(said, Heard((), "how much", 1.7))])
    steps = exchanged([Step(0.6, 0.7, 0.8, 0.09, 0.1), Step(0.6, 0.7, 0.8)])
    judged = aims({"penstock": way}, Rate(100, 1, 0.01), steps, 500)
    assert [(round(aim.found), aim.met) for aim in judged] == [(200, True), (-1, True), (800, False), (90, True)]
    assert aims({}, Rate(1, 0, 0.0), None, 500) == []


def test_patience_is_longer_than_any_budget() -> None:
    """Or what never came would count as in time."""
    assert min(PATIENCE_S, voice_exchange.PATIENCE_S) * 1000 > FAR * max(BUDGETS.values())


async def test_where_computing_takes_no_time_the_position_is_the_clock() -> None:
    """Words lag by what the policy waits for, however long the recogniser takes; the final comes after the silence."""
    recogniser = ToneRecogniser()
    transcriber = Counting(recogniser)
    spoken = say("what time is it")
    said = Clip("x", "what time is it", spoken.tobytes(), (0.2, 0.46, 0.72, 0.98), 0.98)
    slow = recogniser.recognise

    def dawdling(tasks: Any) -> Any:
        time.sleep(0.05)
        return slow(tasks)

    recogniser.recognise = dawdling  # type: ignore[method-assign]
    async with asyncio.timeout(DEADLINE_S), transcriber:
        heard = await Alone(Loaded(PowerVad(), recogniser), AsrSettings(), transcriber).hear(said)
    assert heard.text == "what time is it"
    assert heard.final == pytest.approx(0.98 + voice_ours.SILENCE_MS / 1000, abs=0.07)
    first = first_shown(heard)
    assert first is not None
    assert 0.2 <= first <= 1.2


@pytest.mark.slow
async def test_a_whole_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part finds its clips and its gateway, and the file says what was measured and what it was aimed at."""
    clips = [clip("how much is it", 0.1)._replace(ends=(0.02, 0.04, 0.06, 0.1)) for _ in range(2)]
    gateway = Gateway(*["how much is it"] * 40)

    @asynccontextmanager
    async def served(options: list[str], folder: Path) -> AsyncIterator[SimpleNamespace]:
        async with gateway.serving() as url:
            yield SimpleNamespace(url=url)

    async def alone(*_: Any) -> Any:
        return {voice.UNAWARE: [(one, Heard((), one.text, 0.9)) for one in clips]}, Rate(8, 0, 0.0)

    monkeypatch.setattr(voice, "served", served)
    monkeypatch.setattr(voice, "_alone", alone)
    monkeypatch.setattr(voice_exchange, "PLAYED_S", 0.05)
    monkeypatch.setattr(voice, "LEAD_S", 0.0)
    plan = Plan(clips=2, exchanges=1, load=Load(each=1, fewest=2), widths=(1, 2), peers=False)
    found = await voice._measured([], "model", AsrSettings(), plan, clips)
    voice._tell(plan, AsrSettings(model="x"), found, tmp_path / "voice.json")
    told = json.loads((tmp_path / "voice.json").read_text())
    assert list(told["listening"]) == [voice.UNAWARE, "penstock", voice.BY_HAND]
    assert told["listening"]["penstock"]["rate"] == {"words": 8, "errors": 0, "wer": 0.0}
    assert [width["sessions"] for width in told["curve"]] == [1, 2]
    assert told["exchanges"]["audio"]["n"] == 1
    assert len(told["aims"]) >= 3
    assert told["curve"][0]["final"]["n"] == len(clips)
    assert "penstock" in readme_voice(told, plotted=True)
