"""A recording through a transcription session."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from apps.chat.line import NobodyListens, Refused
from apps.voice import transcribe as module
from apps.voice.audio import UnreadableAudio, opened
from apps.voice.client import CallLost, call
from apps.voice.transcribe import Job, NotTranscribed, session_of
from apps.voice.transcript import Transcript
from tests.apps.voice.fake import Ears, Gateway
from tests.apps.voice.sounds import silence, tone, wav

TWO = tone(0.3) + silence(0.5) + tone(0.3) + silence(0.5)


async def transcribed(gateway: Gateway, path: Path, *, realtime: bool = False) -> tuple[Transcript, list[str]]:
    """Return the transcript of a file, and what it looked like in between."""
    seen: list[str] = []
    async with gateway.serving() as url, call(url, session_of("en"), intent="transcription") as line:
        job = Job(line)
        with opened(str(path)) as recording:
            await job.run(recording, lambda one: seen.append(one.text), lambda seconds: None, realtime=realtime)
    return job.transcript, seen


async def test_words_come_while_they_may_change_and_then_for_good(tmp_path: Path) -> None:
    """Every utterance grows by deltas, ends as its final text, and the recording's length is known."""
    gateway = Gateway("how much is it", "thank you")
    transcript, seen = await transcribed(gateway, wav(tmp_path / "a.wav", TWO))
    assert [one.text for one in transcript] == ["how much is it", "thank you", ""]
    assert all(one.final for one in transcript)
    assert seen.index("how muc") < seen.index("how much is it") < seen.index("than") < seen.index("thank you")
    assert transcript.seconds == pytest.approx(1.6)
    assert gateway.paths == ["/v1/realtime?intent=transcription"]
    heard = gateway.sessions[0].session
    assert (heard["type"], heard["audio"]["input"]["transcription"]["language"]) == ("transcription", "en")


@pytest.mark.parametrize("ending", [tone(0.2), silence(0.1)])
async def test_what_the_recording_ends_with_is_transcribed(tmp_path: Path, ending: bytes) -> None:
    """The last word counts, also where no silence comes after it."""
    transcript, _ = await transcribed(Gateway("first", "last"), wav(tmp_path / "a.wav", TWO[:-24_000] + ending))
    assert transcript.text == ("first last")


async def test_the_end_may_have_been_committed_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is left to commit, all has been transcribed."""

    async def all_committed(ears: Ears, sound: bytes) -> None:
        await hear(ears, sound)
        ears.uncommitted = 0

    hear = Ears.hear
    monkeypatch.setattr(Ears, "hear", all_committed)
    transcript, _ = await transcribed(Gateway("how much"), wav(tmp_path / "a.wav", tone(0.3) + silence(0.5)))
    assert [one.text for one in transcript] == ["how much"]


async def test_no_more_is_sent_than_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow gateway is not flooded, and silence, of which it tells nothing, does not stop the sending."""
    monkeypatch.setattr(module, "AHEAD_S", 1.0)
    monkeypatch.setattr(module, "QUIET_S", 0.1)
    begun = time.perf_counter()
    transcript, _ = await transcribed(Gateway("at last"), wav(tmp_path / "a.wav", silence(4.0) + tone(0.3)))
    assert transcript.text == "at last"
    assert 0.25 < time.perf_counter() - begun < 2


async def test_silence_has_no_words(tmp_path: Path) -> None:
    """A recording of nothing ends like any other."""
    transcript, _ = await transcribed(Gateway(), wav(tmp_path / "a.wav", silence(0.3)))
    assert transcript.text == ""


async def test_in_real_time_nothing_is_sent_before_it_was_recorded(tmp_path: Path) -> None:
    """Six tenths of a second take as long."""
    begun = time.perf_counter()
    transcript, _ = await transcribed(Gateway("how much"), wav(tmp_path / "a.wav", tone(0.6)), realtime=True)
    assert time.perf_counter() - begun >= 0.6
    assert transcript.text == "how much"


async def test_a_damaged_recording_is_told_after_what_came_before(tmp_path: Path) -> None:
    """What could be read is transcribed, then the error says from where on it could not."""
    path = wav(tmp_path / "a.wav", TWO)
    gateway = Gateway("how much", "never")

    class Torn:
        """Breaks off after the first utterance."""

        seconds = 1.6

        def pieces(self, samples: int) -> object:
            """Give half of it."""
            with opened(str(path)) as recording:
                yield from list(recording.pieces(samples))[:2]
            raise UnreadableAudio("a.wav", "it is damaged after 1.0 s (torn)")

    async with gateway.serving() as url, call(url, session_of()) as line:
        job = Job(line)
        with pytest.raises(UnreadableAudio, match=r"after 1\.0 s"):
            await job.run(Torn(), lambda one: None, lambda seconds: None, realtime=False)  # type: ignore[arg-type]
    assert job.transcript.text == "how much never"


async def test_a_refusal_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's own words reach the caller, whatever is still being sent."""

    async def refuse(ears: Ears, sound: bytes) -> None:
        await ears.tell("error", error={"message": "no model listens", "code": "asr_unavailable"})

    monkeypatch.setattr(Ears, "hear", refuse)
    with pytest.RaisesGroup(pytest.RaisesExc(NotTranscribed, match="no model listens")):
        await transcribed(Gateway(), wav(tmp_path / "a.wav", TWO))


async def test_a_lost_connection_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gateway's reason, if it gave one."""

    async def hang_up(ears: Ears, sound: bytes) -> None:
        await ears.socket.close(1012, "going away")

    monkeypatch.setattr(Ears, "hear", hang_up)
    with pytest.RaisesGroup(pytest.RaisesExc(CallLost, match=r"going away \(1012\)"), flatten_subgroups=True):
        await transcribed(Gateway(), wav(tmp_path / "a.wav", silence(0.1)))


async def test_a_gateway_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the end of the recording word must come within some time."""

    async def ignore(ears: Ears, event: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(Ears, "commit", ignore)
    with pytest.RaisesGroup(pytest.RaisesExc(NotTranscribed, match="nothing")):
        await transcribed(Gateway(), wav(tmp_path / "a.wav", silence(0.1)))


async def test_nobody_listens_there(unused_port: int) -> None:
    """The error names the address and the cure."""
    with pytest.raises(NobodyListens, match=rf"127\.0\.0\.1:{unused_port}.*penstock up"):
        async with call(f"ws://127.0.0.1:{unused_port}", session_of()):
            pass


async def test_a_session_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway without ears says so before any sound is sent."""

    async def refuse(ears: Ears, event: object) -> None:
        await ears.tell("error", error={"message": "transcription sessions are not served"})

    monkeypatch.setattr(Ears, "take", refuse)
    with pytest.raises(Refused, match="not served"):
        async with Gateway().serving() as url, call(url, session_of()):
            pass
