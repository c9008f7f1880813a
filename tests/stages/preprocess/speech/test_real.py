"""The stage with what it is made of: Silero VAD and the bundled model, spoken to by espeak-ng."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from apps.settings import AsrSettings
from apps.speech import Ears, hearing, load_ears
from pipeline.voice import RATE, Detection, Listening, Sound, SpeechStopped, Transcribed
from stages import g711
from stages.postprocess.speak.espeak import SAMPLE_RATE, espeak
from stages.preprocess.speech.stage import SpeechStage
from tests.stages.preprocess.speech.fakes import SERVER, silence, sounds, stream, tone

SENTENCES = ("how much is the delivery", "do you have the jacket in blue", "i want to cancel my order")
QUICK = Listening(detection=Detection(), partials=False)


@pytest.fixture(scope="module")
def ears() -> Ears:
    """Give the models, loaded once."""
    return asyncio.run(load_ears(AsrSettings()))


@pytest.fixture
async def stage(ears: Ears) -> AsyncIterator[SpeechStage]:
    """Give the stage, at work."""
    async with hearing(ears, AsrSettings()) as parts:
        yield parts.speech


def _spoken(text: str) -> NDArray[np.float64]:
    spoken = np.frombuffer(espeak().say(text).pcm, np.int16)
    places = np.arange(len(spoken) * RATE // SAMPLE_RATE) * (SAMPLE_RATE / RATE)
    sound: NDArray[np.float64] = np.interp(places, np.arange(len(spoken)), spoken)
    return sound


def _talk() -> NDArray[np.float64]:
    parts = [part for text in SENTENCES for part in (silence(1), _spoken(text))]
    return np.concatenate([*parts, silence(1)])


def _pcm(sound: Any) -> NDArray[np.int16]:
    pcm: NDArray[np.int16] = np.clip(sound, -32768, 32767).astype(np.int16)
    return pcm


async def _texts(stage: SpeechStage, messages: list[Sound]) -> list[str]:
    async with asyncio.timeout(50):
        return [one.text async for one in stage(stream(messages)) if isinstance(one, Transcribed)]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda sound: sound, id="as it is"),
        pytest.param(lambda sound: sound / 30, id="quiet"),
        pytest.param(lambda sound: sound + 9_000, id="with an offset"),
        pytest.param(lambda sound: sound * 3, id="clipped"),
        pytest.param(lambda sound: sound + np.random.default_rng(1).normal(0, 150, len(sound)), id="in noise"),
    ],
)
async def test_however_it_was_recorded(stage: SpeechStage, how: Any) -> None:
    """Each sentence is a turn, and its words are right."""
    assert await _texts(stage, sounds(_pcm(how(_talk())), QUICK)) == list(SENTENCES)


async def test_a_turn_ends_after_the_silence_that_was_asked_for(stage: SpeechStage) -> None:
    """Counted from where the sound ends, not from where the network has noticed; to a frame or so."""
    late = []
    for text in SENTENCES:
        for shift in (0, 250, 500):
            spoken = _spoken(text)
            ends = RATE + shift + int(np.flatnonzero(abs(spoken) > 0.02 * abs(spoken).max())[-1])
            sound = _pcm(np.concatenate([np.zeros(RATE + shift), spoken, silence(1)]))
            async with asyncio.timeout(50):
                told = [one async for one in stage(stream(sounds(sound, QUICK)))]
            late += [one.at - ends - RATE // 2 for one in told if isinstance(one, SpeechStopped)]
    assert len(late) == 9
    assert abs(np.median(late)) <= 0.02 * RATE
    assert max(map(abs, late)) <= 0.05 * RATE


async def test_on_the_telephone(stage: SpeechStage) -> None:
    """8 kHz are enough to find the turns and most of the words."""
    data = g711.encode(_pcm(_talk())[::3], "pcmu")
    how = Listening(encoding="pcmu", detection=Detection(), partials=False)
    messages = [Sound("s", "a", at * 3, data[at : at + 800], how) for at in range(0, len(data), 800)]
    texts = await _texts(stage, messages)
    assert len(texts) == len(SENTENCES)
    wrong = sum(set(text.split()) != set(said.split()) for text, said in zip(texts, SENTENCES, strict=True))
    assert wrong <= 1


async def test_what_is_no_speech_has_no_text(stage: SpeechStage) -> None:
    """Noise, throbbing noise, tones, hum, knocks and a melody: not a word."""
    chance, count = np.random.default_rng(5), 4 * RATE
    time = np.arange(count) / RATE
    notes = np.array([262, 330, 392, 523, 440, 349])[(time * 4).astype(int) % 6]
    melody = sum(4_000 / n * np.sin(2 * np.pi * notes * n * time) for n in range(1, 6)) * np.exp(-4 * (time % 0.25))
    some = [
        chance.normal(0, 3_000, count),
        chance.normal(0, 5_000, count) * (1 + np.sin(2 * np.pi * 4 * time)) / 2,
        tone(4, 440),
        tone(4, 50),
        chance.normal(0, 12_000, count) * np.exp(-(time % 1.0) * 100),
        melody,
    ]
    texts = [text for sound in some for text in await _texts(stage, sounds(_pcm(sound), SERVER))]
    assert "".join(texts) == ""


@pytest.mark.slow
async def test_a_long_story(stage: SpeechStage) -> None:
    """A turn longer than the model's window is cut at its pauses, and almost no word is lost."""
    story = [*SENTENCES, "where is my order", "what time do you open tomorrow", *SENTENCES]
    parts = [part for text in story for part in (silence(0.4), _spoken(text))]
    sound = np.concatenate([*parts, silence(2)])
    assert len(sound) > 15 * RATE
    how = Listening(detection=Detection(silence_ms=1200), partials=False)
    (text,) = await _texts(stage, sounds(_pcm(sound), how))
    said = " ".join(story).split()
    matched = sum(block.size for block in SequenceMatcher(None, said, text.split()).get_matching_blocks())
    assert matched / len(said) > 0.9


async def test_the_first_word_begins_where_somebody_speaks(stage: SpeechStage) -> None:
    """The padding before a turn is no part of its first word, whatever the model thinks."""
    sound = np.concatenate([silence(1), _spoken(SENTENCES[0]), silence(1)])
    async with asyncio.timeout(50):
        told = [one async for one in stage(stream(sounds(_pcm(sound), QUICK))) if isinstance(one, Transcribed)]
    assert told[0].words[0].start == pytest.approx(RATE, abs=RATE // 12)
    assert all(word.start <= word.end for word in told[0].words)
