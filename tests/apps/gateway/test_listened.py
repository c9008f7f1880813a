"""How far audio stands in the log: to the sample, whatever was told of it, and read in a moment."""

from __future__ import annotations

import asyncio
import time

import pytest

from apps.gateway import history, listened
from apps.gateway.history import History
from apps.gateway.listened import reached
from pipeline.memory import MemoryBus
from pipeline.topics import AUDIO
from pipeline.voice import Listening, Sound
from tests.apps.gateway.harness import gateway, until
from tests.apps.gateway.test_resume import SECRET, back, session_of
from tests.apps.gateway.test_serving import Breakable
from tests.apps.gateway.test_voice_sockets import COMPLETED, speak, speaking
from tests.apps.gateway.voice_desk import MS, audio_settings
from tests.apps.gateway.voiced import utterance, voiced

SESSION = "sess_1"


def sound(at: int, length: int, stream: str = "audio_1", **more: object) -> Sound:
    """Return a piece of audio; `at` and `length` are samples."""
    return Sound(SESSION, stream, at, bytes(2 * length), **more)  # type: ignore[arg-type]


async def log_of(*sounds: Sound, key: str = SESSION) -> MemoryBus:
    """Return a bus on which these stand."""
    bus = MemoryBus()
    for one in sounds:
        await (await bus.publish(AUDIO.name, AUDIO.encode(one), key=key, headers={}))
    return bus


async def found(bus: MemoryBus, noted_at: float | None = None) -> tuple[str, int] | None:
    """Return how far it stands there."""
    return await reached(bus, History(bus), SESSION, "audio_1", time.time() if noted_at is None else noted_at)


async def test_the_last_sample_is_found() -> None:
    """Of the stream, in whole milliseconds, for that is what clients are told; others' audio is not it."""
    bus = await log_of(sound(0, 2400), sound(2400, 1210), sound(0, 9600, "audio_2"))
    await (await bus.publish(AUDIO.name, b"\xc1", key=SESSION, headers={}))

    assert await found(bus) == ("audio_1", 3600)


async def test_a_sample_of_g711_counts_three() -> None:
    """As everywhere."""
    telephone = Sound(SESSION, "audio_1", 240, bytes(800), Listening("pcmu"))
    assert await found(await log_of(telephone)) == ("audio_1", 240 + 2400)


async def test_an_end_is_seen() -> None:
    """Nothing more goes into that stream."""
    assert await found(await log_of(sound(0, 2400), sound(2400, 0, then="end"))) == ("", 2400)


async def test_where_nothing_is_there_nothing_is_known() -> None:
    """The log no longer has it, or it was of another stream: what was told counts."""
    assert await found(await log_of()) is None
    assert await found(await log_of(sound(0, 2400, "audio_2"))) is None


async def test_no_more_is_read_than_can_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes back late does not read all that others have said meanwhile."""
    monkeypatch.setattr(listened, "BEFORE_S", 0.1)
    monkeypatch.setattr(listened, "AFTER_S", 0.1)
    bus = await log_of(sound(0, 2400))
    noted_at = time.time()
    await asyncio.sleep(0.25)
    await (await bus.publish(AUDIO.name, AUDIO.encode(sound(2400, 2400)), key=SESSION, headers={}))

    assert await found(bus, noted_at) == ("audio_1", 2400)
    assert await found(bus, noted_at + 0.25) == ("audio_1", 4800)


async def test_more_than_is_read_back_at_once_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What had been taken for its end would be a place that was heard long ago."""
    monkeypatch.setattr(history, "MOST_BYTES", 3 * len(AUDIO.encode(sound(0, 2400))))
    bus = await log_of(*(sound(at, 2400) for at in range(0, 24_000, 2400)))

    assert await found(bus) == ("audio_1", 24_000)


async def test_a_turn_is_one_although_its_gateway_died() -> None:
    """In mid-word, with audio in the log of which nothing was told: the next one goes on to the sample."""
    said = utterance("one", "two", "three")
    bus = MemoryBus()
    async with (
        voiced(bus, secret=SECRET, replies=(0,)) as (running, ears),
        gateway(bus=bus, secret=SECRET, replies=(1,), audio=audio_settings()) as other,
        speaking(running) as client,
    ):
        await speak(client, said[: 450 * MS * 2])
        await until(lambda: sum(len(one.data) for one in ears.sounds) == 450 * MS * 2)
        await client.until("conversation.item.input_audio_transcription.delta")
        async with back(other, session_of(client), client.told.events[-1]["event_id"], client.told) as there:
            resumed = await there.until("session.updated")
            await speak(there, said[resumed["input_audio_ms"] * MS * 2 :])
            assert (await there.until(COMPLETED))["transcript"] == "one two three"

    assert resumed["input_audio_ms"] == 450
    assert len({one.turn for one in ears.sounds}) == 1


async def test_audio_that_could_not_be_written_is_asked_for_again() -> None:
    """While the log takes none, the connection ends; who comes back is told how much is there, and loses nothing."""
    said = utterance("one", "two", "three")
    bus = Breakable()
    async with voiced(bus, publish_timeout_s=0.3) as (running, ears), speaking(running) as client:
        await speak(client, said[: 400 * MS * 2])
        await until(lambda: sum(len(one.data) for one in ears.sounds) == 400 * MS * 2)
        bus.down.add(AUDIO.name)
        await speak(client, said[400 * MS * 2 : 700 * MS * 2])
        assert (await client.closed())[0] == 1013
        bus.down.clear()
        async with back(running, session_of(client), client.told.events[-1]["event_id"], client.told) as there:
            resumed = await there.until("session.updated")
            await speak(there, said[resumed["input_audio_ms"] * MS * 2 :])
            assert (await there.until(COMPLETED))["transcript"] == "one two three"

    assert resumed["input_audio_ms"] == 400
    assert len({one.turn for one in ears.sounds}) == 1
