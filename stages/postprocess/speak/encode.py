"""An utterance in the encoding that a client wants, with its marks, cut into pieces as they go through the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.messages import Encoding
from pipeline.voice import RATE
from stages import g711
from stages.postprocess.speak.resample import Resampler
from stages.postprocess.speak.synthesizer import Mark, Samples, Sound

PIECE = 1_920
"""Samples of a piece, 80 ms: whole ones at 8 kHz, too."""

THIRD = RATE // g711.RATE
"""Samples that one of G.711 counts."""


class Piece(NamedTuple):
    """Some of an answer's sound: its first sample's number, how many it is, its bytes, and the marks in it."""

    at: int
    samples: int
    data: bytes
    marks: tuple[Mark, ...]


class Utterance:
    """The sound of a text of an answer, which begins at sample `at`; always a whole number of samples at 8 kHz."""

    def __init__(self, at: int, encoding: Encoding) -> None:
        self.end = at
        self._begin = at
        self._encoding = encoding
        self._slower = None if encoding == "pcm16" else Resampler(RATE, g711.RATE)
        self._data = bytearray()
        self._made = 0
        self._marks: list[Mark] = []

    def add(self, sound: Sound) -> Iterator[Piece]:
        """The pieces that are complete with `sound`, and not the last; the marks' places are those in the answer."""
        self._marks += [(characters, self._begin + sample) for characters, sample in sound.marks]
        self._made += len(sound.samples)
        self._encode(sound.samples)
        yield from self._pieces(PIECE + THIRD)

    def finish(self, characters: int, pause_s: float) -> Iterator[Piece]:
        """The rest, with a pause after it; `characters` of the answer have been said where that begins."""
        self._marks.append((characters, self._begin + self._made))
        silence = round(pause_s * RATE)
        silence += -(self._made + silence) % THIRD
        self._encode(np.zeros(silence, np.int16))
        if self._slower is not None:
            self._data += self._bytes(self._slower.finish())
        yield from self._pieces(1)

    def _encode(self, samples: Samples) -> None:
        self._data += self._bytes(samples if self._slower is None else self._slower.feed(samples))

    def _bytes(self, samples: Samples) -> bytes:
        return samples.tobytes() if self._encoding == "pcm16" else g711.encode(samples, self._encoding)

    def _pieces(self, least: int) -> Iterator[Piece]:
        """What there is, in pieces of at most PIECE samples and at least `least`."""
        while (left := count(self._data, self._encoding)) >= least:
            samples = min(PIECE, left)
            at, self.end = self.end, self.end + samples
            size = samples * 2 if self._encoding == "pcm16" else samples // THIRD
            data = bytes(self._data[:size])
            del self._data[:size]
            yield Piece(at, samples, data, self._marked())

    def _marked(self) -> tuple[Mark, ...]:
        """The marks up to the end of what was given out."""
        marks = tuple(mark for mark in self._marks if mark[1] <= self.end)
        self._marks = [mark for mark in self._marks if mark[1] > self.end]
        return marks


def count(data: bytes | bytearray, encoding: Encoding) -> int:
    """How many samples at 24 kHz are in `data`."""
    return len(data) // 2 if encoding == "pcm16" else len(data) * THIRD
