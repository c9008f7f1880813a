"""Speech without speech: a word is a short tone, which a fake VAD and a fake recogniser know by its power and pitch."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterable, Sequence
from time import sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.voice import RATE, Detection, Listening, Sound
from stages.preprocess.speech.ear import MODEL_RATE
from stages.preprocess.speech.recogniser import Heard, Task, Transcription
from stages.preprocess.speech.resample import Samples
from stages.preprocess.speech.vad import Memory

LEXICON = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("and", "please", "i", "want", "to", "go", "home", "what", "time", "is", "it"),
]
LOWEST, STEP = 400, 200
WORD_S, GAP_S = 0.2, 0.06
BLOCK = MODEL_RATE // 100

SERVER = Listening(detection=Detection())
PUSH = Listening()


def tone(seconds: float, hertz: float, volume: float = 0.3) -> NDArray[np.int16]:
    """A tone at 24 kHz."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (volume * 32767 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    """Nothing."""
    return np.zeros(round(seconds * RATE), np.int16)


def say(text: str, gap: float = GAP_S) -> NDArray[np.int16]:
    """`text`, word by word, each followed by `gap` seconds of nothing."""
    parts = [part for word in text.split() for part in (_word(word), silence(gap))]
    return np.concatenate(parts)


def _word(word: str) -> NDArray[np.int16]:
    return tone(WORD_S, LOWEST + STEP * LEXICON.index(word))


def sounds(
    samples: NDArray[np.int16], how: Listening = SERVER, *, at: int = 0, size: int = 2400, turn: str = "audio_1"
) -> list[Sound]:
    """`samples` from position `at` on in pieces of `size`."""
    return [
        Sound("s", turn, at + begin, samples[begin : begin + size].tobytes(), how)
        for begin in range(0, len(samples), size)
    ]


async def stream(messages: Iterable[Sound]) -> AsyncGenerator[Sound, None]:
    """`messages` as a stage reads them."""
    for message in messages:
        yield message


class PowerVad:
    """Takes what is loud for speech."""

    def listen(self, windows: Samples, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """See `Vad`."""
        power = np.sqrt(np.mean(np.square(windows), axis=1))
        return np.where(power > 0.02, 0.95, 0.01).astype(np.float32), memory


class ToneRecogniser:
    """Hears words in tones. `tasks` is what it was given, `batches` how many at once and how long they were together.

    While `going` is not set it takes its time, and `takes_s` seconds a piece otherwise.
    """

    name = "tones"

    def __init__(self, window_s: float = 8.0) -> None:
        self.window_s = window_s
        self.tasks: list[Task] = []
        self.batches: list[tuple[int, int]] = []
        self.going = threading.Event()
        self.going.set()
        self.fails: Exception | None = None
        self.takes_s = 0.0

    def kind(self, task: Task) -> object:
        """See `Recogniser`."""
        return None

    def recognise(self, tasks: Sequence[Task]) -> list[Transcription]:
        """See `Recogniser`."""
        assert self.going.wait(10)
        sleep(self.takes_s * len(tasks))
        self.tasks += tasks
        self.batches.append((len(tasks), sum(task.samples for task in tasks)))
        if self.fails is not None:
            raise self.fails
        return [Transcription(tuple(heard(np.concatenate(task.frames))), "en") for task in tasks]


def heard(samples: Samples) -> Iterable[Heard]:
    """The words in `samples`, at 16 kHz."""
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
    loud = np.concatenate(([False], np.sqrt(np.mean(np.square(blocks), axis=1)) > 0.05, [False]))
    edges = np.flatnonzero(np.diff(loud.astype(np.int8)))
    for begin, end in edges.reshape(-1, 2):
        if end - begin >= 4:
            yield Heard(f" {_known(samples[begin * BLOCK : end * BLOCK])}", begin / 100, end / 100)


def _known(samples: Samples) -> str:
    spectrum: Any = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), MODEL_RATE))
    return LEXICON[min(max(round((int(spectrum.argmax()) - LOWEST) / STEP), 0), len(LEXICON) - 1)]
