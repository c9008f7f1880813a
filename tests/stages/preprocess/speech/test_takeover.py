"""The speech stage in its loop, on a bus: what a dead worker had not told, the next one tells, by the same names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from pipeline.memory import MemoryBus
from pipeline.stage import Stage
from pipeline.topics import REPLIES
from pipeline.voice import Sound, SpeechStarted, SpeechStopped, Transcribed, Transcript
from stages.preprocess.speech.stage import SpeechStage, speech_stage
from stages.preprocess.speech.transcriber import Transcriber
from tests.pipeline.fakes import Tap, make_loop, put, running, tapping
from tests.pipeline.test_loop_contract import doomed, kafka_route, kill
from tests.services import KafkaService
from tests.stages.preprocess.speech.fakes import SERVER, PowerVad, say, silence, sounds

TEXTS = ("i want to go home", "what time is it", "one two three four five", "please go home")


@pytest.fixture
async def bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus with one partition a topic, so that all streams share it."""
    async with MemoryBus(partitions=1) as bus:
        yield bus


def _stage(transcriber: Transcriber) -> Stage:
    return speech_stage(SpeechStage(PowerVad(), transcriber))


def _talk(turn: str) -> list[Sound]:
    quiet = silence(3.1)
    sound = np.concatenate([part for text in TEXTS for part in (quiet, say(text))] + [silence(1)])
    messages = sounds(sound, SERVER, turn=turn)
    return [*messages, Sound("s", turn, len(sound), b"", SERVER, "end")]


async def _until_last(replies: Tap, streams: int) -> list[Any]:
    """All that is said, up to the last turn of each stream."""
    told: list[Any] = []
    while len({one.turn for one in told if isinstance(one, Transcribed) and one.text == TEXTS[-1]}) < streams:
        told += await replies.take(1)
    return told


def _facts(told: list[Any], turn: str) -> dict[str, tuple[Any, ...]]:
    """Of each turn of a stream, what is told of it however often: where it begins and ends, and its words."""
    facts: dict[str, list[Any]] = {}
    for one in told:
        if one.turn == turn and not isinstance(one, Transcript):
            seen = facts.setdefault(one.item, [])
            if one not in seen:
                seen.append(one)
    return {item: tuple(sorted(seen, key=repr)) for item, seen in facts.items()}


async def _reference(transcriber: Transcriber, turn: str) -> dict[str, tuple[Any, ...]]:
    async with (
        MemoryBus(partitions=1) as bus,
        tapping(bus, REPLIES) as replies,
        running(make_loop(_stage(transcriber), bus)),
    ):
        for sound in _talk(turn):
            await put(bus, sound)
        return _facts(await _until_last(replies, 1), turn)


@pytest.mark.parametrize("deaths", [(60,), (85, 88), (40, 75, 110)])
async def test_no_word_is_lost_and_none_is_told_in_two_ways(
    bus: MemoryBus, transcriber: Transcriber, deaths: tuple[int, ...]
) -> None:
    """Workers die in the middle of turns, and between them; every turn has one beginning, one end and one text."""
    async with tapping(bus, REPLIES) as replies:
        messages = iter(_talk("audio_1"))
        given = 0
        for death in deaths:
            worker = asyncio.create_task(make_loop(_stage(transcriber), bus).run())
            while given < death:
                await put(bus, next(messages))
                given += 1
                await asyncio.sleep(0.002)
            worker.cancel()
            await asyncio.wait([worker])
        async with running(make_loop(_stage(transcriber), bus)):
            for sound in messages:
                await put(bus, sound)
            told = await _until_last(replies, 1)

    facts = _facts(told, "audio_1")
    assert [len(fact) for fact in facts.values()] == [3] * len(TEXTS)
    assert facts == await _reference(transcriber, "audio_1")


@pytest.mark.slow
async def test_a_worker_killed_with_kafka(kafka: KafkaService, transcriber: Transcriber) -> None:
    """The same on a real broker, where the dead worker's commits and leave are missing, too."""
    async with kafka_route(kafka) as bus, tapping(bus, REPLIES) as replies:
        messages = iter(_talk("audio_1"))
        former = make_loop(_stage(transcriber), bus)
        async with doomed(former) as task:
            for _ in range(82):
                await put(bus, next(messages))
                await asyncio.sleep(0.01)
            await kill(former, task)
        async with running(make_loop(_stage(transcriber), bus)):
            for sound in messages:
                await put(bus, sound)
            told = await _until_last(replies, 1)
    assert _facts(told, "audio_1") == await _reference(transcriber, "audio_1")


async def test_partial_words_go_on_where_they_were(bus: MemoryBus, transcriber: Transcriber) -> None:
    """Cut by the characters before them, what several workers tell of a turn is one text."""
    async with tapping(bus, REPLIES) as replies:
        messages = iter(_talk("audio_1"))
        worker = asyncio.create_task(make_loop(_stage(transcriber), bus).run())
        for _ in range(44):
            await put(bus, next(messages))
            await asyncio.sleep(0.005)
        worker.cancel()
        await asyncio.wait([worker])
        async with running(make_loop(_stage(transcriber), bus)):
            for sound in messages:
                await put(bus, sound)
            told = await _until_last(replies, 1)
    texts: dict[str, str] = {}
    for one in told:
        if isinstance(one, Transcript):
            text = texts.get(one.item, "")
            assert one.at <= len(text)
            texts[one.item] = text + one.text[len(text) - one.at :]
    assert list(texts.values()) == list(TEXTS)


async def test_streams_that_share_a_partition(bus: MemoryBus, transcriber: Transcriber) -> None:
    """One that is told far and one in mid turn: the next worker reads both again from where the slower one stood.

    What it says of turns that were told is the same, but for the tail of one that it may meet at its beginning: that
    begins before the end of what was told, by which the gateway knows it.
    """
    async with tapping(bus, REPLIES) as replies:
        one, two = _talk("audio_1"), _talk("audio_2")
        worker = asyncio.create_task(make_loop(_stage(transcriber), bus).run())
        for number in range(100):
            await put(bus, one[number])
            if number >= 60:
                await put(bus, two[number - 60])
            await asyncio.sleep(0.001)
        worker.cancel()
        await asyncio.wait([worker])
        async with running(make_loop(_stage(transcriber), bus)):
            for sound in (*one[100:], *two[40:]):
                await put(bus, sound)
            told = await _until_last(replies, 2)

    for turn in ("audio_1", "audio_2"):
        expected = await _reference(transcriber, turn)
        facts, ends = _facts(told, turn), 0
        for one_told in (fact for fact in told if fact.turn == turn):
            if isinstance(one_told, SpeechStarted) and one_told.item not in expected:
                assert one_told.at < ends
                facts.pop(one_told.item)
            elif isinstance(one_told, SpeechStopped):
                ends = max(ends, one_told.at)
        assert facts == expected
