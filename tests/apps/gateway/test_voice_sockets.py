"""Speaking over real sockets: one who floods beside one who speaks, a gateway that goes, hours of silence."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

from apps.gateway import connection
from pipeline.memory import MemoryBus
from tests.apps.gateway.checks import Told
from tests.apps.gateway.harness import Client, Running, connected, gateway, until
from tests.apps.gateway.test_chat import chat, frames
from tests.apps.gateway.test_resume import SECRET, back, session_of
from tests.apps.gateway.test_sockets import silent
from tests.apps.gateway.voice_desk import MS, VoiceDesk, audio_settings
from tests.apps.gateway.voiced import utterance, voiced

COMPLETED = "conversation.item.input_audio_transcription.completed"
TRANSCRIBED = {"type": "realtime", "audio": {"input": {"transcription": {"model": "any"}}}}


async def speak(client: Client, audio: bytes, chunk_ms: int = 100) -> None:
    """Send audio in pieces."""
    size = chunk_ms * MS * 2
    for at in range(0, len(audio), size):
        await client.send("input_audio_buffer.append", audio=b64encode(audio[at : at + size]).decode())


@asynccontextmanager
async def speaking(running: Running, query: str = "") -> AsyncGenerator[Client, None]:
    """Connect a client that wants to know what it says."""
    async with connected(running, query) as client:
        await client.send("session.update", session=TRANSCRIBED)
        yield client


async def test_a_flood_of_audio_waits_with_its_sender() -> None:
    """One client sends minutes at once; another one beside it is heard and answered as if it were alone."""
    minutes = b64encode(bytes(60_000 * MS * 2)).decode()
    async with (
        voiced(MemoryBus(partitions=1), audio={"speed": 20.0, "ahead_s": 2.0}) as (running, ears),
        speaking(running) as flood,
        speaking(running) as other,
    ):
        for _ in range(2):
            await flood.send("input_audio_buffer.append", audio=minutes)
        await until(lambda: bool(ears.sounds))
        sent = time.monotonic()
        await speak(other, utterance("one"))
        heard = await other.until(COMPLETED)
        await other.until("response.output_audio.delta")
        took = time.monotonic() - sent
        flooded = sum(len(sound.data) for sound in ears.sounds if sound.session == session_of(flood))

    assert heard["transcript"] == "one"
    assert took < 2.0
    assert flooded <= (2.0 + 20.0 * (took + 1.0)) * 1000 * MS * 2 + 65_536


async def test_who_floods_has_its_pings_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its audio waits, the next event is read soon: clients take a silent socket for a dead one."""
    monkeypatch.setattr(connection, "HELD_S", 0.2)
    minutes = b64encode(bytes(60_000 * MS * 2)).decode()
    async with voiced(MemoryBus(), audio={"speed": 2.0, "ahead_s": 2.0}) as (running, _), speaking(running) as flood:
        for _ in range(3):
            await flood.send("input_audio_buffer.append", audio=minutes)
        await asyncio.wait_for(await flood.socket.ping(), 10)
        await flood.say("still there?", id="mine")
        assert (await flood.until("conversation.item.added"))["item"]["id"] == "mine"


async def test_pieces_of_audio_are_no_requests() -> None:
    """Fifty pieces a second of many sessions are no flood of events: they count by their length."""
    async with voiced(MemoryBus(), requests_per_s=1.0, requests_burst=20) as (running, _), speaking(running) as client:
        await speak(client, utterance("one", "two"), chunk_ms=10)
        assert (await client.until(COMPLETED))["transcript"] == "one two"


async def test_bad_audio_is_read_no_faster_than_other_events() -> None:
    """Audio that is refused counts as an event: who sends nothing else waits."""
    async with voiced(MemoryBus(), requests_per_s=50.0, requests_burst=5) as (running, _), connected(running) as client:
        began = time.monotonic()
        for _ in range(40):
            await client.send("input_audio_buffer.append", audio="?")
        for _ in range(40):
            assert (await client.until("error"))["error"]["code"] == "invalid_value"

    assert time.monotonic() - began > 0.4


@asynccontextmanager
async def pair(**changed: Any) -> AsyncGenerator[tuple[Running, Running], None]:
    """Run two gateways of one deployment that hear and speak; the first one's stages work for both."""
    bus = MemoryBus(partitions=2)
    options: dict[str, Any] = {"secret": SECRET, **changed}
    async with (
        voiced(bus, replies=(0,), **options) as (first, _),
        gateway(bus=bus, answer=silent, replies=(1,), audio=audio_settings(), **options) as second,
    ):
        yield first, second


async def test_speech_goes_on_at_another_gateway() -> None:
    """In the middle of a word the client moves: what was begun comes to its end, and what it says on is heard."""
    async with pair() as (first, second):
        async with speaking(first) as client:
            await speak(client, utterance("one", "two", after_ms=0))
            await client.until("conversation.item.input_audio_transcription.delta")
            told, session = client.told, session_of(client)
            last = told.events[-1]["event_id"]
        async with back(second, session, last, told) as client:
            assert (await client.until(COMPLETED))["transcript"] == "one two"
            response = (await client.until("response.done"))["response"]
            await speak(client, utterance("three"))
            after = await client.until(COMPLETED)

    assert response["status"] == "completed"
    assert after["transcript"] == "three"
    assert isinstance(told, Told)


async def test_a_spoken_answer_goes_on_at_another_gateway() -> None:
    """What was heard before the move is not heard again, and nothing is missing."""
    async with pair() as (first, second):
        async with speaking(first) as client:
            await speak(client, utterance("one", "two", "three", "four"))
            await client.until("response.output_audio.delta")
            told, session = client.told, session_of(client)
            last = told.events[-1]["event_id"]
        async with back(second, session, last, told) as client:
            response = (await client.until("response.done"))["response"]

    assert response["output"][0]["content"][0]["transcript"] == "You said: one two three four"
    assert len(told.audio(response["output"][0]["id"])) == 6 * 200 * MS * 2


async def test_what_is_measured() -> None:
    """Each step of an exchange has its time, and who sends audio is counted."""
    async with voiced(MemoryBus()) as (running, _), speaking(running) as client:
        await speak(client, utterance(*["one", "two"] * 6))
        await client.until("response.output_audio.delta")
        assert running.count("voice_sessions") == 1
        await speak(client, utterance("three"))
        await client.until("response.done")
        counts = {
            name: running.count(f"voice_{name}_seconds_count")
            for name in ("transcript", "first_token", "first_audio", "partial_lag", "silenced")
        }
        assert running.count("voice_interruptions_total") == 1
        assert running.count("voice_audio_seconds_total") == pytest.approx(4.0, abs=0.5)

    assert min(counts.values()) >= 1, counts


def test_hours_of_silence_cost_nothing() -> None:
    """Who says nothing for hours has a small state, and a log that grows by next to nothing."""
    desk = VoiceDesk({"ahead_s": 1e9})
    desk.listen(format={"type": "audio/pcmu"})
    silence = b64encode(b"\xff" * 80_000).decode()
    for _ in range(2 * 360):
        desk.send("input_audio_buffer.append", audio=silence)
        desk.sounds.clear()
        desk.session.remember(desk.offset, 2000)
        desk.pump()

    assert desk.session.voicing.microphone.position == 2 * 3600 * 1000 * MS
    assert desk.offset < 2 * 3600 / 5 * 1.2
    assert len(desk.session.account.state()) < 4096


async def test_who_goes_in_the_middle_of_a_flood_is_let_go() -> None:
    """A client whose audio still waits may close its socket; the session ends, and tells the speech stage so."""
    seconds = b64encode(bytes(5_000 * MS * 2)).decode()
    async with voiced(MemoryBus(), audio={"speed": 5.0, "ahead_s": 1.0}, grace_s=0.3) as (running, ears):
        async with connected(running) as client:
            await client.send("input_audio_buffer.append", audio=seconds)
            await until(lambda: bool(ears.sounds))
        await until(lambda: not running.hub.seats.connected)
        await until(lambda: not len(running.hub.seats))
        await until(lambda: ears.sounds[-1].then == "end")
        assert running.count("voice_sessions") == 0

    assert sum(len(sound.data) for sound in ears.sounds) == 5_000 * MS * 2


async def test_lines_are_answered_in_lines() -> None:
    """`/chat/NAME` is text, wherever there is a speak stage or not."""
    async with voiced(MemoryBus()) as (running, _), chat(running) as socket:
        await socket.send("hello")
        assert "".join(await frames(socket)) == "You said: hello<END>"


async def test_audio_is_refused_where_nobody_hears() -> None:
    """Without a speech stage a transcription session is turned away in words."""
    async with (
        gateway() as running,
        websockets.connect(f"{running.ws}/v1/realtime?intent=transcription") as socket,
    ):
        assert (await Client(socket).next())["error"]["code"] == "audio_not_supported"
        await asyncio.wait_for(socket.wait_closed(), 10)
