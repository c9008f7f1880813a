"""espeak-ng as a synthesizer: one thread for all, voices for OpenAI's names, a language for each script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from pipeline.voice import RATE
from stages.postprocess.speak.espeak import SAMPLE_RATE, Espeak, Kind, Piece, Style, espeak
from stages.postprocess.speak.espeak import Mark as EspeakMark
from stages.postprocess.speak.resample import resample
from stages.postprocess.speak.scripts import language_of
from stages.postprocess.speak.synthesizer import Mark, Sound

USUAL = "en-us"
WARMING_UP = "hello"
SLOWEST, FASTEST = 80, 450
"""Words a minute that espeak-ng can speak."""

GAP_S = 0.031
"""Seconds of a unit of the gap between words, at 80 words a minute."""

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
        self._said(WARMING_UP, self.style(WARMING_UP, "", 1.0), threading.Event())
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
        given_up = threading.Event()
        style = self.style(text, voice, speed)
        try:
            yield await asyncio.get_running_loop().run_in_executor(self._thread, self._said, text, style, given_up)
        finally:
            given_up.set()

    def _voice(self, text: str, name: str) -> str:
        """The voice called `name`, or which one is meant; in the language of `text`, where one can see that."""
        usual, plus, suffix = self._usual.partition("+")
        if name.lower() in VARIANTS:
            plus, suffix = "+", VARIANTS[name.lower()]
        elif name and name in self._espeak.voices:
            usual, plus, suffix = name.partition("+")
        return language_of(text, usual) + plus + suffix

    def _said(self, text: str, style: Style, given_up: threading.Event) -> Sound:
        """`text` as sound; nothing, if it was `given_up` meanwhile."""
        pcm = bytearray()
        marks: list[EspeakMark] = []

        def take(piece: Piece) -> bool:
            pcm.extend(piece.pcm)
            marks.extend(piece.marks)
            return not given_up.is_set()

        if not given_up.is_set():
            self._espeak.stream(text, style, take)
        if given_up.is_set():
            pcm.clear()
        samples = resample(np.frombuffer(bytes(pcm), np.int16), SAMPLE_RATE, RATE)
        words = [(mark.start, mark.at * RATE // SAMPLE_RATE) for mark in marks if mark.kind is Kind.WORD]
        return Sound(samples, tuple(_between(text, words)))


def _between(text: str, words: list[Mark]) -> Iterator[Mark]:
    """Those of `words` that begin after the one before, and not within a number, of which each part has a mark."""
    last = 0
    for place, sample in words:
        if last < place < len(text) and (text[place - 1].isspace() or not text[place - 1].isascii()):
            yield place, sample
            last = place
