"""The SDKs that people have, unmodified, speak with a gateway on a real port, and interrupt it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents.realtime import RealtimeAgent, RealtimeRunner
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from pipeline.memory import MemoryBus
from tests.apps.gateway.checks import Event, Told
from tests.apps.gateway.harness import DEADLINE_S, Running
from tests.apps.gateway.test_sdks import sdk
from tests.apps.gateway.voice_desk import MS
from tests.apps.gateway.voiced import utterance, voiced

CHUNK = 100 * MS * 2


async def send(connection: AsyncRealtimeConnection, audio: bytes) -> None:
    """Send audio in pieces, as a microphone does, only faster."""
    for at in range(0, len(audio), CHUNK):
        await connection.input_audio_buffer.append(audio=b64encode(audio[at : at + CHUNK]).decode())


async def events(connection: AsyncRealtimeConnection, told: Told, last: str) -> AsyncIterator[Event]:
    """Receive events up to one of this kind, each of which is checked."""
    async with asyncio.timeout(DEADLINE_S):
        async for event in connection:
            shown = told.add(event.to_dict(mode="json"))
            assert event.type != "error", event
            yield shown
            if event.type == last:
                return


async def until(connection: AsyncRealtimeConnection, told: Told, last: str) -> Event:
    """Return the next event of a kind."""
    async for event in events(connection, told, last):
        if event["type"] == last:
            return event
    raise AssertionError(f"the connection has ended before {last}")


async def test_openai_sdk_speaks_and_is_answered() -> None:
    """The SDK streams audio in, and gets what it said, and an answer in words and sound, as its types have them."""
    told = Told()
    async with (
        voiced(MemoryBus()) as (running, _),
        sdk(running) as client,
        client.realtime.connect(model="penstock-demo") as connection,
    ):
        transcription: Any = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
        await connection.session.update(session={"type": "realtime", "audio": transcription})
        await send(connection, utterance("two", "three", "five"))
        heard = await until(connection, told, "conversation.item.input_audio_transcription.completed")
        response = (await until(connection, told, "response.done"))["response"]

    kinds = told.types()
    assert heard["transcript"] == "two three five"
    assert "conversation.item.input_audio_transcription.delta" in kinds
    assert response["output"][0]["content"][0]["transcript"] == "You said: two three five"
    assert len(told.audio(response["output"][0]["id"])) == 5 * 200 * MS * 2
    order = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]
    assert [kind for kind in kinds if kind in order] == order


async def test_openai_sdk_interrupts_the_answer() -> None:
    """While the answer is spoken the user speaks: it is cancelled, no more audio comes, and the next one is whole."""
    told = Told()
    async with (
        voiced(MemoryBus()) as (running, _),
        sdk(running) as client,
        client.realtime.connect(model="penstock-demo") as connection,
    ):
        await send(connection, utterance(*["one", "two", "three", "four", "five", "six", "seven", "eight"] * 3))
        await until(connection, told, "response.output_audio.delta")
        await send(connection, utterance("nine", "ten", after_ms=100))
        first = (await until(connection, told, "response.done"))["response"]
        item = first["output"][0]["id"]
        heard = len(told.audio(item))
        await connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=200)
        await until(connection, told, "conversation.item.truncated")
        await send(connection, utterance())
        second = (await until(connection, told, "response.done"))["response"]

    assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert heard < 26 * 200 * MS * 2 / 2
    assert len(told.audio(item)) == heard
    assert (second["status"], second["output"][0]["content"][0]["transcript"]) == ("completed", "You said: nine ten")
    said = running.stages.turns[-1].conversation
    assert [u.text for u in said[1:]] == ["You", "nine ten"]
    assert running.count("voice_interruptions_total") == 1


async def test_openai_sdk_pushes_to_talk() -> None:
    """Without turn detection: append, commit, and a response at once, in text because it is asked for."""
    told = Told()
    async with (
        voiced(MemoryBus()) as (running, _),
        sdk(running) as client,
        client.realtime.connect(model="penstock-demo") as connection,
    ):
        audio: Any = {"input": {"turn_detection": None}}
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"], "audio": audio})
        await send(connection, utterance("four", "two"))
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        response = (await until(connection, told, "response.done"))["response"]

    assert response["output"][0]["content"][0]["text"] == "You said: four two"


async def test_openai_sdk_only_transcribes() -> None:
    """`intent=transcription`: transcripts of each turn, and no response."""
    told = Told()
    done = "conversation.item.input_audio_transcription.completed"
    async with (
        voiced(MemoryBus()) as (running, _),
        sdk(running) as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        vad: Any = {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}}
        await connection.session.update(session={"type": "transcription", "audio": vad})
        await send(connection, utterance("one", "two") + utterance("three"))
        heard = [(await until(connection, told, done))["transcript"] for _ in range(2)]
        await connection.input_audio_buffer.clear()
        await until(connection, told, "input_audio_buffer.cleared")

    assert heard == ["one two", "three"]
    assert not any(kind.startswith("response.") for kind in told.types())
    assert told.events[0]["session"]["type"] == "transcription"


async def test_openai_sdk_sends_audio_as_an_item() -> None:
    """Audio in an item is transcribed, and answered when that is asked for."""
    told = Told()
    async with (
        voiced(MemoryBus()) as (running, _),
        sdk(running) as client,
        client.realtime.connect(model="penstock-demo") as connection,
    ):
        part = {"type": "input_audio", "audio": b64encode(utterance("six", "seven")).decode()}
        item: Any = {"type": "message", "role": "user", "content": [part]}
        await connection.conversation.item.create(item=item)
        await connection.response.create(response={"output_modalities": ["text"]})
        response = (await until(connection, told, "response.done"))["response"]

    assert response["output"][0]["content"][0]["text"] == "You said: six seven"


@pytest.mark.slow
async def test_a_file_of_minutes_goes_through() -> None:
    """Fifteen megabytes in one event: taken, let go on at its pace, and heard to the last word."""
    told = Told()
    audio = utterance("one", after_ms=323_000) + utterance("two")
    assert 14.5 * 2**20 < len(audio) < 15 * 2**20
    async with (
        voiced(MemoryBus(), audio={"speed": 1000.0, "ahead_s": 10.0}) as (running, ears),
        sdk(running) as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        await connection.input_audio_buffer.append(audio=b64encode(audio).decode())
        done = "conversation.item.input_audio_transcription.completed"
        heard = [(await until(connection, told, done))["transcript"] for _ in range(2)]

    assert heard == ["one", "two"]
    assert max(len(sound.data) for sound in ears.sounds) == 65_536


def shown(event: Any) -> Event | None:
    """Return what the server sent, if an event of the agents SDK is that."""
    raw = event.data if event.type == "raw_model_event" else None
    return raw.data if raw is not None and raw.type == "raw_server_event" else None


async def spoken_to(running: Running, session: Any) -> tuple[list[str], list[Event]]:
    """Speak over the agents SDK, and interrupt the answer; return the kinds of its events, and what was sent."""
    kinds, sent, interrupted = list[str](), list[Event](), False
    await session.send_audio(utterance(*["one", "two", "three", "four"] * 5))
    async for event in session:
        kinds.append(event.type)
        assert event.type != "error", event
        if event.type == "audio" and not interrupted:
            interrupted = True
            await session.send_audio(utterance("five"))
        if (frame := shown(event)) is None:
            continue
        sent.append(frame)
        assert frame["type"] != "error", frame
        if frame["type"] == "response.done" and frame["response"]["status"] == "completed":
            break
    return kinds, sent


async def test_agents_sdk_speaks_and_interrupts() -> None:
    """The agents SDK's runner, with its defaults, speaks, interrupts, and cuts what was not heard, without an error."""
    async with voiced(MemoryBus()) as (running, _):
        runner = RealtimeRunner(RealtimeAgent(name="A", instructions="Be brief."))
        config: Any = {"api_key": "none", "url": f"{running.ws}/v1/realtime?model=penstock-demo"}
        async with asyncio.timeout(DEADLINE_S), await runner.run(model_config=config) as session:
            kinds, sent = await spoken_to(running, session)

    told = Told()
    for event in sent:
        told.add(event)
    done = [event["response"] for event in sent if event["type"] == "response.done"]
    assert [response["status"] for response in done] == ["cancelled", "completed"]
    assert done[1]["output"][0]["content"][0]["transcript"] == "You said: five"
    assert {"audio", "audio_interrupted", "history_updated"} <= {*kinds}
    truncated = [event for event in sent if event["type"] == "conversation.item.truncated"]
    assert [event["item_id"] for event in truncated] == [done[0]["output"][0]["id"]]
    said = [u.text for u in running.stages.turns[-1].conversation]
    assert len(said[2]) < len("You said: " + said[1])
