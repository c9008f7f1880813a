"""From the bytes of a stream to frames at 16 kHz, each with the probability that somebody speaks in it.

All of it has a short memory: a frame depends on its place and on the second before it, never on where the reading of
the stream began, nor on how it was cut. So a new owner, who begins anywhere, soon hears what the old one heard.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Encoding
from pipeline.voice import RATE
from stages import g711
from stages.preprocess.speech.resample import Resampler, Samples
from stages.preprocess.speech.vad import WINDOW, Memory, blank

MODEL_RATE = 16_000
"""What both models hear."""

FRAME = WINDOW * RATE // MODEL_RATE
"""Positions of a frame: 768, which are 32 ms."""

STEADY = 16
"""Frames of which the mean is what is taken for a steady offset."""

RESET = 64
"""Frames after which the VAD forgets, where their number is a multiple of it: each 2 s."""

RECALL = 16
"""Frames of before that it hears again then."""

MEMORY = (RECALL + STEADY + 4) * FRAME
"""Positions before a RESET on which what comes after it depends, and no others."""

SCALE = np.float32(1 / 32768)


class Network(Protocol):
    """Tells speech: see `Vad`."""

    def listen(self, windows: Samples, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """The probability of speech in each of the windows."""


class Frame(NamedTuple):
    """32 ms of a stream: 512 samples at 16 kHz without offset, how probable speech is in it, and its last position."""

    samples: Samples
    voice: float
    end: int


class Ear:
    """Hears a stream in `encoding` from position `at` on."""

    def __init__(self, network: Network, encoding: Encoding, at: int) -> None:
        self.encoding: Encoding = encoding
        self._network = network
        self._number, skipped = divmod(at, FRAME)
        rate = RATE if encoding == "pcm16" else g711.RATE
        self._block = FRAME * rate // RATE
        self._wide = 2 if encoding == "pcm16" else 1
        self._resampler = Resampler(rate, MODEL_RATE, self._block)
        quiet = 0 if encoding == "pcm16" else g711.encode(np.zeros(1, np.int16), encoding)[0]
        self._rest = bytes([quiet]) * (skipped * rate // RATE * self._wide)
        self._memory = blank()
        self._past: deque[Samples] = deque(maxlen=RECALL)
        self._means: deque[float] = deque(maxlen=STEADY)
        self._offset = 0.0

    @property
    def at(self) -> int:
        """The position after the last whole sample that came."""
        return self._number * FRAME + self.positions(len(self._rest))

    @property
    def sample(self) -> int:
        """Positions of one sample. Sound of another encoding may have ended within one."""
        return self.positions(self._wide)

    def positions(self, size: int) -> int:
        """How many positions `size` bytes are."""
        return size // self._wide * FRAME // self._block

    def size(self, positions: int) -> int:
        """How many bytes so many positions are."""
        return positions * self._block // FRAME * self._wide

    def hear(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Half a sample at its end waits for its other half."""
        data = self._rest + data
        size = self._block * self._wide
        whole = len(data) // size * size
        self._rest = data[whole:]
        if not whole:
            return []
        blocks = self._decode(data[:whole]).reshape(-1, self._block)
        frames = [self._steady(self._resampler.turn(block)) for block in blocks]
        return self._judged(frames)

    def _decode(self, data: bytes) -> Samples:
        """`data` as numbers from -1 to 1."""
        pcm = np.frombuffer(data, "<i2") if self.encoding == "pcm16" else g711.decode(data, self.encoding)
        samples: Samples = pcm * SCALE
        return samples

    def _steady(self, frame: Samples) -> Samples:
        """`frame` without the offset of the last half second, which some sound cards add."""
        self._means.append(float(frame.mean()))
        before, self._offset = self._offset, sum(self._means) / len(self._means)
        if len(self._means) == 1:
            before = self._offset
        return frame - np.linspace(before, self._offset, len(frame), dtype=np.float32)

    def _judged(self, frames: list[Samples]) -> list[Frame]:
        """`frames` with the probability of speech in them."""
        judged: list[Frame] = []
        while frames:
            if self._number % RESET == 0:
                self._recall()
            run = RESET - self._number % RESET
            now, frames = frames[:run], frames[run:]
            voices, self._memory = self._network.listen(np.stack(now), self._memory)
            for samples, voice in zip(now, voices, strict=True):
                self._number += 1
                judged.append(Frame(samples, float(voice), self._number * FRAME))
            self._past.extend(now)
        return judged

    def _recall(self) -> None:
        """Forget all but the last half second."""
        self._memory = blank()
        if self._past:
            _, self._memory = self._network.listen(np.stack(tuple(self._past)), self._memory)
