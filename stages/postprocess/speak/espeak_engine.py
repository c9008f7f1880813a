"""espeak-ng as a synthesizer: one thread for all, voices for OpenAI's names, a language for each script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from pipeline.voice import RATE
from stages.postprocess.speak.espeak import SAMPLE_RATE, Espeak, Kind, Piece, Style, espeak
from stages.postprocess.speak.resample import Resampler
from stages.postprocess.speak.scripts import language_of
from stages.postprocess.speak.synthesizer import Mark, Samples, Sound

USUAL = "en-us"
WARMING_UP = "hello"
SLOWEST, FASTEST = 80, 450
"""Words a minute that espeak-ng can speak."""

GAP_S = 0.031
"""Seconds of a unit of the gap between words, at 80 words a minute."""

FIRST, GROWTH = SAMPLE_RATE // 2, 4
"""Bytes of an utterance that are handed out first, a quarter of a second, and how many times more each next time."""

VARIANTS = MappingProxyType(
    {
        "alloy": "f2", "ash": "m3", "ballad": "m1", "cedar": "m2", "coral": "f1", "echo": "m4", "fable": "m5",
        "marin": "f3", "nova": "Annie", "onyx": "m8", "sage": "f4", "shimmer": "Alicia", "verse": "m6",
    }
)  # fmt: skip
"""By which variant of the configured language each of OpenAI's names is spoken."""


class EspeakSynthesizer:
    """Speaks by espeak-ng in a thread of its own, text by text in the order in which they came.

    Args:
        voice: The usual one: a language, or `language+variant`.
        rate: Words a minute at the usual speed.
        pitch: From 0 to 100.

    Says a word to nobody at first: that loads the voice and prepares the filter, which takes a tenth of a second.

    Raises:
        SynthesisFailed: there is no such voice.
    """

    at_once = 1

    def __init__(self, voice: str = "", *, rate: int = 175, pitch: int = 50) -> None:
        self._espeak: Espeak = espeak()
        self._usual = voice or USUAL
        self._rate, self._pitch = rate, pitch
        self._make(Making(WARMING_UP, lambda _: None), self.style(WARMING_UP, "", 1.0))
        self._thread = ThreadPoolExecutor(1, "espeak")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def style(self, text: str, voice: str, speed: float) -> Style:
        """How `text` is spoken by `voice`."""
        wanted = self._rate * speed
        rate = min(max(round(wanted), SLOWEST), FASTEST)
        gap = round((60 / wanted - 60 / rate) / GAP_S) if wanted < SLOWEST else 0
        return Style(self._voice(text, voice), rate, self._pitch, gap=gap)

    async def say(self, text: str, voice: str, speed: float) -> AsyncGenerator[Sound, None]:
        """See `Synthesizer.say`."""
        loop = asyncio.get_running_loop()
        made: asyncio.Queue[Sound | None] = asyncio.Queue()
        making = Making(text, lambda sound: loop.call_soon_threadsafe(made.put_nowait, sound))
        work = loop.run_in_executor(self._thread, self._make, making, self.style(text, voice, speed))
        try:
            while (sound := await made.get()) is not None:
                yield sound
            await work
        finally:
            making.given_up.set()
            work.cancel()

    def _make(self, making: Making, style: Style) -> None:
        try:
            if not making.given_up.is_set():
                self._espeak.stream(making.text, style, making.take)
                making.finish()
        finally:
            making.tell(None)

    def _voice(self, text: str, name: str) -> str:
        """The voice called `name`, or which one is meant; in the language of `text`, where one can see that."""
        usual, plus, suffix = self._usual.partition("+")
        if name.lower() in VARIANTS:
            plus, suffix = "+", VARIANTS[name.lower()]
        elif name and name in self._espeak.voices:
            usual, plus, suffix = name.partition("+")
        return language_of(text, usual) + plus + suffix


class Making:
    """Sound in the making, which happens in the thread; each `tell` hands some of it out, and None means the end.

    The first of it comes soon, the rest in larger and larger pieces: each costs a turn of the event loop.
    """

    def __init__(self, text: str, tell: Callable[[Sound | None], object]) -> None:
        self.text = text
        self.tell = tell
        self.given_up = threading.Event()
        self._resampler = Resampler(SAMPLE_RATE, RATE)
        self._pcm = bytearray()
        self._marks: list[Mark] = []
        self._said = 0
        self._enough = FIRST

    def take(self, piece: Piece) -> bool:
        """The next piece of espeak-ng's; whether to go on."""
        self._pcm.extend(piece.pcm)
        self._marks.extend(self._words(piece))
        if len(self._pcm) >= self._enough:
            self._enough *= GROWTH
            self._tell(self._resampler.feed(self._taken()))
        return not self.given_up.is_set()

    def finish(self) -> None:
        """That was all."""
        self._tell(np.concatenate((self._resampler.feed(self._taken()), self._resampler.finish())))

    def _taken(self) -> Samples:
        pcm, self._pcm = self._pcm, bytearray()
        return np.frombuffer(pcm, np.int16)

    def _tell(self, samples: Samples) -> None:
        marks, self._marks = tuple(self._marks), []
        self.tell(Sound(samples, marks))

    def _words(self, piece: Piece) -> Iterator[Mark]:
        """Where words begin, after the one before; not within a number, of which each part has a mark."""
        for mark in piece.marks:
            place = mark.start
            if mark.kind is not Kind.WORD or not self._said < place < len(self.text):
                continue
            if self.text[place - 1].isspace() or not self.text[place - 1].isascii():
                self._said = place
                yield place, mark.at * RATE // SAMPLE_RATE
