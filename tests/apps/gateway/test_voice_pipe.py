"""The gateway with the real stages around it: voice detection, the chat model, espeak-ng; only the words are given."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from apps.local import served_here
from apps.parts import NAMES, loaded
from apps.settings import AsrSettings, ModelSettings, Settings, SpeakSettings
from apps.speaking import loaded_speak
from apps.speech import Ears, hearing
from pipeline.memory import MemoryBus
from stages.postprocess.speak.espeak_engine import EspeakSynthesizer
from stages.preprocess.speech.recogniser import Heard, Task, Transcription
from stages.preprocess.speech.vad import Vad
from tests.apps.gateway.checks import Told
from tests.apps.gateway.test_voice_sdks import until
from tests.apps.gateway.voice_desk import MS, audio_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

QUESTION = "what are your opening hours"
COMPLETED = "conversation.item.input_audio_transcription.completed"


class Knowing:
    """A recogniser that knows what is said, as soon as there is enough of it."""

    name, window_s = "knowing", 30.0

    def kind(self, task: Task) -> object:
        """All tasks are alike."""
        return None

    def recognise(self, tasks: Sequence[Task]) -> list[Transcription]:
        """Hear the question in each of them, word by word."""
        return [self._heard(task.samples / 16_000) for task in tasks]

    def _heard(self, seconds: float) -> Transcription:
        words = QUESTION.split()[: max(1, int(seconds / 0.3))]
        return Transcription(tuple(Heard(f" {word}", 0.3 * n, 0.3 * n + 0.25) for n, word in enumerate(words)), "en")


@asynccontextmanager
async def penstock() -> AsyncGenerator[AsyncOpenAI, None]:
    """Run the whole pipe; give a client of it."""
    settings = Settings()
    settings = replace(settings, gateway=replace(settings.gateway, audio=audio_settings()))
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(MemoryBus())
        parts = await stack.enter_async_context(loaded(ModelSettings()))
        speech = await stack.enter_async_context(hearing(Ears(Vad(), Knowing()), AsrSettings()))
        speak = await stack.enter_async_context(loaded_speak(SpeakSettings()))
        stages = [parts.stage(name, settings.stage) for name in NAMES]
        stages += [speech.stage(settings.stage), speak.stage(settings.stage)]
        url = await stack.enter_async_context(served_here(bus, stages, settings, parts.name))
        yield await stack.enter_async_context(AsyncOpenAI(base_url=f"http{url[2:]}/v1", api_key="none"))


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
    """A question is found, answered in words and speech, and the answer stops where somebody speaks."""
    told = Told()
    async with penstock() as client, client.realtime.connect(model="default") as connection:
        transcription: Any = {"input": {"transcription": {"model": "any"}}}
        await connection.session.update(session={"type": "realtime", "audio": transcription})
        await speak(connection, await said(QUESTION))
        heard = await until(connection, told, COMPLETED)
        await until(connection, told, "response.output_audio.delta")
        interrupting = asyncio.create_task(speak(connection, await said("stop, thank you"), pace=0.02))
        first = (await until(connection, told, "response.done"))["response"]
        item = first["output"][0]
        length = len(told.audio(item["id"])) // (MS * 2)
        await connection.conversation.item.truncate(item_id=item["id"], content_index=0, audio_end_ms=length // 2)
        cut = await until(connection, told, "conversation.item.truncated")
        await until(connection, told, COMPLETED)
        await until(connection, told, "response.created")
        await interrupting

    assert heard["transcript"] == QUESTION
    assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    full = next(e["transcript"] for e in told.events if e["type"] == "response.output_audio_transcript.done")
    kept, shorter = item["content"][0]["transcript"], cut.get("transcript")
    assert full.startswith(kept)
    assert len(full) > len(kept) > len(shorter or "")
    assert kept.startswith(shorter or "")
    assert told.types().count("input_audio_buffer.speech_started") == 2
