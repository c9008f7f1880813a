"""espeak-ng as a synthesizer: real voices, real speed, and one thread that nobody holds for long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
import pytest

from pipeline.errors import SynthesisFailed
from pipeline.voice import RATE
from stages.postprocess.speak.espeak import espeak
from stages.postprocess.speak.espeak_engine import VARIANTS, EspeakSynthesizer
from stages.postprocess.speak.synthesizer import OPENAI_VOICES, Sound

TEXT = "Hello there, it costs 3.50 dollars and that is all."


@pytest.fixture
async def synthesizer() -> AsyncGenerator[EspeakSynthesizer, None]:
    """The usual one."""
    async with EspeakSynthesizer() as running:
        yield running


async def said(synthesizer: EspeakSynthesizer, text: str = TEXT, voice: str = "", speed: float = 1.0) -> Sound:
    """The sound of `text`."""
    async with asyncio.timeout(20), aclosing(synthesizer.say(text, voice, speed)) as sounds:
        found = [sound async for sound in sounds]
    marks = [mark for sound in found for mark in sound.marks]
    return Sound(np.concatenate([sound.samples for sound in found]), tuple(marks))


def seconds(sound: Sound) -> float:
    """How long it is."""
    return len(sound.samples) / RATE


async def test_text_is_heard_with_its_words(synthesizer: EspeakSynthesizer) -> None:
    """There is sound at 24 kHz, and a mark where each word but the first begins, none within a number."""
    sound = await said(synthesizer)

    assert 2.5 < seconds(sound) < 5
    assert np.abs(sound.samples).max() > 5_000
    starts = [place for place in range(1, len(TEXT)) if TEXT[place - 1] == " "]
    assert {place for place, _ in sound.marks} <= set(starts)
    assert len(sound.marks) >= len(starts) - 3
    samples = [sample for _, sample in sound.marks]
    assert samples == sorted(samples)
    assert 0 < samples[0] < samples[-1] < len(sound.samples)


async def test_first_sound_comes_before_the_rest_is_made(synthesizer: EspeakSynthesizer) -> None:
    """Of a long text the beginning is there soon, in a small piece; the rest comes in few larger ones."""
    async with asyncio.timeout(20), aclosing(synthesizer.say(TEXT * 20, "", 1.0)) as sounds:
        begun = time.monotonic()
        lengths = [len((await anext(sounds)).samples)]
        soon = time.monotonic() - begun
        lengths += [len(sound.samples) async for sound in sounds]
        whole = time.monotonic() - begun

    assert 0.1 * RATE < lengths[0] < 0.4 * RATE
    assert lengths[1] > 2 * lengths[0]
    assert len(lengths) < 8
    assert sum(lengths) > 50 * RATE
    assert soon < whole / 3


async def test_same_sound_again(synthesizer: EspeakSynthesizer) -> None:
    """A text has the same samples and marks again, whatever was spoken meanwhile: its positions can be relied on."""
    first = await said(synthesizer, TEXT, "coral")
    await said(synthesizer, "Something else.", "onyx", 1.3)

    again = await said(synthesizer, TEXT, "coral")

    assert again.samples.tobytes() == first.samples.tobytes()
    assert again.marks == first.marks


async def test_mark_stands_where_the_word_is_heard(synthesizer: EspeakSynthesizer) -> None:
    """Up to the mark of a word the sound is that of the words before it alone, but for the last sounds."""
    sound = await said(synthesizer, "Monday. Tuesday.")
    alone = await said(synthesizer, "Monday.")

    ((_, sample),) = sound.marks
    assert abs(sample - len(alone.samples)) < 0.45 * RATE
    assert np.abs(sound.samples[sample - RATE // 20 : sample]).max() < 300


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.8, 1.25, 1.5])
async def test_speed_is_how_long_it_takes(synthesizer: EspeakSynthesizer, speed: float) -> None:
    """Twice as fast is half as long, about, also below what espeak-ng can do by itself: with pauses then."""
    usual = await said(synthesizer)

    assert seconds(await said(synthesizer, speed=speed)) == pytest.approx(seconds(usual) / speed, rel=0.25)


async def test_openais_voices_are_several(synthesizer: EspeakSynthesizer) -> None:
    """Each name of OpenAI's is somebody, most are somebody else, and other names are the usual voice."""
    assert set(VARIANTS) == set(OPENAI_VOICES)
    sounds = {name: (await said(synthesizer, "Hello.", name)).samples.tobytes() for name in OPENAI_VOICES}
    assert len(set(sounds.values())) == len(OPENAI_VOICES)
    usual = await said(synthesizer, "Hello.")
    assert (await said(synthesizer, "Hello.", "somebody")).samples.tobytes() == usual.samples.tobytes()
    assert usual.samples.tobytes() not in sounds.values()


def test_voices_keep_the_configured_language() -> None:
    """OpenAI's names are variants of the language that is set; espeak's own names are what they say."""
    synthesizer = EspeakSynthesizer("de+m2", rate=200, pitch=40)

    assert synthesizer.style("Hallo", "", 1.0).voice == "de+m2"
    assert synthesizer.style("Hallo", "Marin", 1.0).voice == "de+f3"
    assert synthesizer.style("Hallo", "fr+f1", 1.0).voice == "fr+f1"
    assert synthesizer.style("Hallo", "fr+nobody", 1.0).voice == "de+m2"
    assert synthesizer.style("Hallo", "", 1.5)[1:3] == (300, 40)


@pytest.mark.parametrize(
    ("text", "voice"),
    [
        ("你好，世界", "cmn+f3"),
        ("こんにちは世界", "ja+f3"),
        ("안녕하세요", "ko+f3"),
        ("Привет", "ru+f3"),
        ("Γειά σου", "el+f3"),
        ("Hello 你好 there", "en-us+f3"),
        ("3.50 €", "en-us+f3"),
    ],
)
async def test_language_of_the_script(synthesizer: EspeakSynthesizer, text: str, voice: str) -> None:
    """What most letters are written in decides the language: an English voice would name Chinese letters."""
    assert synthesizer.style(text, "marin", 1.0).voice == voice
    assert voice in espeak().voices
    assert seconds(await said(synthesizer, text, "marin")) > 0.3


def test_language_that_shares_a_script_is_kept() -> None:
    """A Ukrainian voice speaks what is written in Cyrillic letters, a Japanese one what has Chinese characters."""
    assert EspeakSynthesizer("uk").style("Привіт", "", 1.0).voice == "uk"
    assert EspeakSynthesizer("ja").style("世界", "", 1.0).voice == "ja"


def test_unknown_voice_stops_the_start() -> None:
    """A voice that is set and is not there is told at once."""
    with pytest.raises(SynthesisFailed, match="en-uss"):
        EspeakSynthesizer("en-uss")


async def test_event_loop_goes_on(synthesizer: EspeakSynthesizer) -> None:
    """Speaking blocks a thread, not the event loop; many texts at once need one thread."""
    threads = threading.active_count()
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(said(synthesizer, TEXT * 5) for _ in range(8)))
    watching.cancel()

    assert threading.active_count() <= threads + 1
    assert longest < 0.02


async def test_giving_up_frees_the_thread(synthesizer: EspeakSynthesizer) -> None:
    """A very long text that nobody wants any more is stopped in its middle, and one that waited never begins."""
    long = asyncio.create_task(said(synthesizer, TEXT * 4_000))
    waiting = [asyncio.create_task(said(synthesizer, TEXT * 4_000)) for _ in range(3)]
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    for task in (long, *waiting):
        task.cancel()

    assert seconds(await said(synthesizer)) > 2
    assert time.monotonic() - begun < 2
