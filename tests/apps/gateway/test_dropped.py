"""A connection that is lost while its client speaks, and comes back to the same gateway: the microphone goes on."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pipeline.memory import MemoryBus
from pipeline.voice import RATE
from tests.apps.gateway.harness import Client, Running, connected, until
from tests.apps.gateway.test_resume import back, session_of
from tests.apps.gateway.test_voice_sockets import COMPLETED, speak, speaking
from tests.apps.gateway.voice_desk import MS
from tests.apps.gateway.voiced import utterance, voiced

BY_HAND = {"type": "realtime", "audio": {"input": {"turn_detection": None, "transcription": {"model": "any"}}}}
PART = "conversation.item.input_audio_transcription.delta"


def cut_off(client: Client) -> None:
    """Lose the connection without a word."""
    client.socket.transport.abort()


@asynccontextmanager
async def again(running: Running, client: Client) -> AsyncGenerator[Client, None]:
    """Come back to where `client` was."""
    async with back(running, session_of(client), client.told.events[-1]["event_id"], client.told) as there:
        yield there


async def test_speech_goes_on_after_a_drop() -> None:
    """In the middle of a word the connection is lost: it is one turn all the same, in one stream."""
    said = utterance("one", "two", "three")
    middle = 450 * MS * 2
    async with voiced(MemoryBus()) as (running, ears), speaking(running) as client:
        await speak(client, said[:middle])
        await client.until(PART)
        cut_off(client)
        await until(lambda: not running.hub.seats.connected)
        async with again(running, client) as there:
            await speak(there, said[middle:])
            assert (await there.until(COMPLETED))["transcript"] == "one two three"
            kinds = there.told.types()
            resumed = next(event for event in there.told.events if event.get("resumed"))
        streams = {sound.turn for sound in ears.sounds}
        assert running.count("voice_sessions") == 1

    assert len(streams) == 1
    assert resumed["input_audio_ms"] == 450
    assert kinds.count("input_audio_buffer.speech_started") == kinds.count("input_audio_buffer.speech_stopped") == 1


async def test_a_connection_that_is_not_known_to_be_dead_is_heard_no_more() -> None:
    """Its client comes back on another one, and is told exactly how much of its audio was taken: no more is."""
    async with voiced(MemoryBus()) as (running, ears), speaking(running) as client:
        await speak(client, utterance("one", "two", after_ms=0))
        await until(lambda: sum(len(sound.data) for sound in ears.sounds) == 500 * MS * 2)
        while not any(event["type"] == PART for event in client.told.events):
            await client.next()
        async with again(running, client) as there:
            resumed = await there.until("session.updated")
            await asyncio.wait_for(client.socket.wait_closed(), 10)
            await speak(there, utterance("three", before_ms=0))
            assert (await there.until(COMPLETED))["transcript"] == "one two three"

    assert (client.socket.close_code, resumed["input_audio_ms"]) == (4409, 500)


async def test_what_is_not_committed_yet_is_kept() -> None:
    """Who commits by hand and is cut off has lost nothing: what came before and after the drop is one turn."""
    said = utterance("one", "two", "three")
    async with voiced(MemoryBus()) as (running, ears), connected(running) as client:
        await client.send("session.update", session=BY_HAND)
        await client.until("session.updated")
        await speak(client, said[: 300 * MS * 2])
        await until(lambda: bool(ears.sounds))
        cut_off(client)
        async with again(running, client) as there:
            await speak(there, said[300 * MS * 2 :])
            await there.send("input_audio_buffer.commit")
            assert (await there.until(COMPLETED))["transcript"] == "one two three"


async def test_audio_that_waits_to_go_on_is_not_lost() -> None:
    """What the gateway had taken and not handed on yet goes before what comes on the new connection."""
    slow = {"speed": 4.0, "ahead_s": 0.5}
    said = utterance("one", "two", "three", after_ms=0)
    async with voiced(MemoryBus(), audio=slow) as (running, ears), speaking(running) as client:
        await client.until("session.updated")
        flood = b64encode(bytes(6 * RATE * 2) + said).decode()
        await client.send("input_audio_buffer.append", audio=flood)
        await until(lambda: bool(ears.sounds))
        cut_off(client)
        await until(lambda: not running.hub.seats.connected)
        async with again(running, client) as there:
            await speak(there, utterance("four", before_ms=0))
            assert (await there.until(COMPLETED))["transcript"] == "one two three four"

    assert len({sound.turn for sound in ears.sounds}) == 1


async def test_half_a_sample_does_not_outlive_its_connection() -> None:
    """What comes after a drop begins with a whole sample, however many bytes were lost."""
    said = utterance("one", "two")
    middle = 300 * MS * 2
    async with voiced(MemoryBus()) as (running, ears), speaking(running) as client:
        await speak(client, said[:middle])
        await client.send("input_audio_buffer.append", audio=b64encode(b"\x07").decode())
        await client.until(PART)
        await until(lambda: sum(len(sound.data) for sound in ears.sounds) == middle)
        cut_off(client)
        async with again(running, client) as there:
            await speak(there, said[middle:])
            assert (await there.until(COMPLETED))["transcript"] == "one two"


async def test_who_does_not_come_back_has_spoken() -> None:
    """After a drop, a return and another drop the stream still ends in time, and what was said is known."""
    said = utterance("one", "two", after_ms=0)
    async with voiced(MemoryBus(), audio={"idle_s": 0.5}) as (running, ears), speaking(running) as client:
        await speak(client, said[: 300 * MS * 2])
        await client.until(PART)
        cut_off(client)
        async with again(running, client) as there:
            await speak(there, said[300 * MS * 2 :])
            await until(lambda: sum(len(sound.data) for sound in ears.sounds) == len(said))
            cut_off(there)
            await until(lambda: ears.sounds[-1].then == "end")
            assert running.count("voice_sessions") == 0
            async with again(running, there) as late:
                assert (await late.until(COMPLETED))["transcript"] == "one two"
                await speak(late, utterance("three"))
                assert (await late.until(COMPLETED))["transcript"] == "three"

    starts = [event["audio_start_ms"] for event in client.told.events if "audio_start_ms" in event]
    assert starts == sorted(starts)
    assert len({sound.turn for sound in ears.sounds}) == 2
