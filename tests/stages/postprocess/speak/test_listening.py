"""What is spoken can be understood: the demo's own ear writes down what espeak-ng has said, through the whole stage."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from faster_whisper import WhisperModel

from apps.speech import BUNDLED
from pipeline.messages import Voice
from pipeline.voice import RATE
from stages import g711
from stages.postprocess.speak.espeak_engine import EspeakSynthesizer
from stages.postprocess.speak.resample import resample
from stages.postprocess.speak.stage import SpeakStage
from tests.stages.postprocess.speak.fakes import Clock, sentences, spoken

SAID = (
    "How much is a tent for two?",
    "Where is my order?",
    "**Thank you**, that is all.",
    "My order number is 48213.",
)
WRITTEN = "how much is a tent for two where is my order thank you that is all my order number is 48213"
LISTENER_RATE = 16_000


@pytest.fixture(scope="module")
def ear() -> WhisperModel:
    """The bundled recogniser."""
    return WhisperModel(str(BUNDLED), device="cpu", compute_type="int8", cpu_threads=1)


def written(ear: WhisperModel, data: bytes, voice: Voice) -> list[str]:
    """The words that are heard in `data`."""
    if voice.encoding == "pcm16":
        samples = np.frombuffer(data, np.int16)
    else:
        samples = resample(g711.decode(data, voice.encoding), g711.RATE, RATE)
    sound = resample(samples, RATE, LISTENER_RATE).astype(np.float32) / 32_768
    segments, _ = ear.transcribe(sound, language="en", beam_size=1, condition_on_previous_text=False)
    return re.sub(r"[^a-z0-9' ]", "", " ".join(one.text for one in segments).lower()).split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "voice",
    [Voice(), Voice("marin"), Voice("ash", 1.2), Voice("alloy", encoding="pcmu")],
    ids=["usual", "marin", "ash faster", "mu-law"],
)
async def test_words_are_understood(ear: WhisperModel, voice: Voice) -> None:
    """Of words that the demo's ear knows nearly all are heard right: several voices, another speed, the phone."""
    words: list[str] = []
    clock = Clock()
    async with EspeakSynthesizer() as synthesizer:
        for text in SAID:
            stage = SpeakStage(synthesizer, clock=clock, sleep=clock.sleep)
            heard = await spoken(stage, sentences(text, voice=voice))
            data = b"".join(message.data for _, message in heard)
            words += await asyncio.to_thread(written, ear, data, voice)

    assert np.mean([word in words for word in WRITTEN.split()]) >= 0.9, words
    assert len(words) < 1.3 * len(WRITTEN.split())
