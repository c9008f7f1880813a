"""A synthesizer whose sound tells what was said, and a clock that goes on when somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import numpy as np

from pipeline.errors import SynthesisFailed
from pipeline.messages import Voice
from pipeline.stage import Settled, Stream
from pipeline.voice import RATE, Sentence
from stages.postprocess.speak.stage import SpeakStage
from stages.postprocess.speak.synthesizer import Sound, spread

LETTER = RATE // 10
"""Samples that a letter takes: a tenth of a second."""


VOICE = Voice()


class Clock:
    """Time that passes only when somebody waits; what is to happen at which time is done on the way."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.waited: list[float] = []

    def __call__(self) -> float:
        """The time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Be done with waiting at once, after the others have had their turn."""
        self.waited.append(seconds)
        await settle()
        self.now += seconds
        await settle()


async def settle() -> None:
    """Let everything that can happen now happen."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeSynthesizer:
    """Says each letter for a tenth of a second, as a level that is its code; fails at a `!` if it shall."""

    at_once = 1

    def __init__(self, *, fails: BaseException | None = None, letters: int = 0) -> None:
        self.said: list[tuple[str, str, float]] = []
        self.closed = 0
        self._fails = fails
        self._letters = letters

    async def say(self, text: str, voice: str, speed: float) -> AsyncGenerator[Sound, None]:
        """See `Synthesizer.say`: all at once, or so many letters at a time."""
        self.said.append((text, voice, speed))
        try:
            size = self._letters or len(text)
            marks = tuple(spread(text, LETTER * len(text)))
            for at in range(0, len(text), size):
                if self._fails and "!" in text[at : at + size]:
                    raise self._fails
                await asyncio.sleep(0)
                levels = np.array([ord(letter) for letter in text[at : at + size]], np.int16)
                yield Sound(np.repeat(levels, LETTER), () if at else marks)
        finally:
            self.closed += 1


def sentences(
    *texts: str, since: Iterable[float] | float = 1_000.0, voice: Voice = VOICE, last: bool = True
) -> list[Sentence]:
    """`texts` as the sentences of an answer, said at these times."""
    times = [since] * len(texts) if isinstance(since, float) else list(since)
    found: list[Sentence] = []
    at = 0
    for index, (text, time) in enumerate(zip(texts, times, strict=True)):
        found.append(Sentence("s", "t", index, at, text, voice, time, last=last and index == len(texts) - 1))
        at += len(text)
    return found


async def spoken(stage: SpeakStage, messages: Iterable[Sentence], clock: Clock | None = None) -> list[Any]:
    """(when it came, what) of all that `stage` says; a sentence comes when it is said, by `clock`."""

    async def source() -> Stream:
        for message in messages:
            while clock is not None and clock.now < message.since:  # noqa: ASYNC110 (time passes by being looked at)
                await asyncio.sleep(0)
            yield message

    async with asyncio.timeout(20), aclosing(stage(source())) as stream:
        told = [(clock.now if clock else 0.0, message) async for message in stream]
    return [(when, message) for when, message in told if not isinstance(message, Settled)]


FAILURE = SynthesisFailed("no voice today")
