"""The gateway with the real stages around it: what is heard, what is answered and what speaks are our own models."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from apps.local import served_here
from apps.parts import NAMES, loaded
from apps.settings import AsrSettings, ModelSettings, Settings, SpeakSettings
from apps.speaking import loaded_speak
from apps.speech import loaded_speech
from pipeline.memory import MemoryBus
from stages.postprocess.speak.espeak_engine import EspeakSynthesizer
from tests.apps.gateway.checks import Told
from tests.apps.gateway.harness import Client
from tests.apps.gateway.test_voice_sdks import until
from tests.apps.gateway.test_voice_sockets import TRANSCRIBED
from tests.apps.gateway.test_voice_sockets import speak as send_sound
from tests.apps.gateway.voice_desk import MS, audio_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

QUESTION, OTHER = "when are you open on saturday", "how do i return boots"
COMPLETED = "conversation.item.input_audio_transcription.completed"


@asynccontextmanager
async def served() -> AsyncGenerator[str, None]:
    """Run the whole pipe; give its address."""
    settings = Settings()
    settings = replace(settings, gateway=replace(settings.gateway, audio=audio_settings()))
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(MemoryBus())
        parts = await stack.enter_async_context(loaded(ModelSettings()))
        speech = await stack.enter_async_context(loaded_speech(AsrSettings()))
        speak = await stack.enter_async_context(loaded_speak(SpeakSettings()))
        stages = [parts.stage(name, settings.stage) for name in NAMES]
        stages += [speech.stage(settings.stage), speak.stage(settings.stage)]
        yield await stack.enter_async_context(served_here(bus, stages, settings, parts.name))


@asynccontextmanager
async def penstock() -> AsyncGenerator[AsyncOpenAI, None]:
    """Run the whole pipe; give a client of it."""
    async with served() as url, AsyncOpenAI(base_url=f"http{url[2:]}/v1", api_key="none") as client:
        yield client


async def said(text: str) -> bytes:
    """Return `text` as somebody says it, and the silence after it."""
    sounds = [sound.samples async for sound in EspeakSynthesizer().say(text, "", 1.0)]
    return bytes(200 * MS * 2) + np.concatenate(sounds).astype("<i2").tobytes() + bytes(800 * MS * 2)


async def speak(connection: AsyncRealtimeConnection, sound: bytes, *, pace: float = 0.0) -> None:
    """Send sound in pieces of 20 ms, with so many seconds between them."""
    for at in range(0, len(sound), 20 * MS * 2):
        await connection.input_audio_buffer.append(audio=b64encode(sound[at : at + 20 * MS * 2]).decode())
        await asyncio.sleep(pace)


async def test_a_spoken_exchange_and_an_interruption(demo_model: Path) -> None:
    """A question is heard, answered in words and speech, and the answer stops where somebody asks something else."""
    told = Told()
    async with penstock() as client, client.realtime.connect(model="default") as connection:
        transcription: Any = {"input": {"transcription": {"model": "any"}}}
        await connection.session.update(session={"type": "realtime", "audio": transcription})
        await speak(connection, await said(QUESTION))
        heard = await until(connection, told, COMPLETED)
        await until(connection, told, "response.output_audio.delta")
        interrupting = asyncio.create_task(speak(connection, await said(OTHER), pace=0.02))
        first = (await until(connection, told, "response.done"))["response"]
        item = first["output"][0]
        length = len(told.audio(item["id"])) // (MS * 2)
        await connection.conversation.item.truncate(item_id=item["id"], content_index=0, audio_end_ms=length // 2)
        cut = await until(connection, told, "conversation.item.truncated")
        other = await until(connection, told, COMPLETED)
        await until(connection, told, "response.created")
        await interrupting

    assert (heard["transcript"], other["transcript"]) == (QUESTION, OTHER)
    assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    full = next(e["transcript"] for e in told.events if e["type"] == "response.output_audio_transcript.done")
    kept, shorter = item["content"][0]["transcript"], cut.get("transcript")
    assert full.startswith(kept)
    assert len(full) > len(kept) > len(shorter or "")
    assert kept.startswith(shorter or "")
    assert told.types().count("input_audio_buffer.speech_started") == 2


async def test_a_connection_lost_in_the_middle_of_a_word(demo_model: Path) -> None:
    """Back on the same gateway a moment later the sentence is one turn: its words, its place and its answer."""
    sound = await said(QUESTION)
    middle = 1000 * MS * 2
    async with served() as url, websockets.connect(f"{url}/v1/realtime") as socket:
        client = Client(socket)
        await client.send("session.update", session=TRANSCRIBED)
        await send_sound(client, sound[:middle], chunk_ms=20)
        await client.until("input_audio_buffer.speech_started")
        socket.transport.abort()
        session, last = client.told.events[0]["session"]["id"], client.told.events[-1]["event_id"]
        async with websockets.connect(f"{url}/v1/realtime?resume={session}&last_event_id={last}") as again:
            there = Client(again)
            there.told = client.told
            resumed = await there.until("session.updated")
            await send_sound(there, sound[resumed["input_audio_ms"] * MS * 2 :], chunk_ms=20)
            heard = await there.until(COMPLETED)
            await there.until("response.output_audio.delta")

    assert heard["transcript"] == QUESTION
    assert client.told.types().count("input_audio_buffer.speech_started") == 1
    assert client.told.types().count("response.created") == 1
