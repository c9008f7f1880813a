"""Where there is speech: Silero VAD, as faster-whisper ships it, window by window. The one importer of its session.

It blocks for about .1 ms a window (32 ms of sound), .3 % of a core for a stream.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.preprocess.speech.resample import Samples

WINDOW = 512
"""Samples of a window, at 16 kHz."""

CONTEXT = 64
"""Samples before a window that the network sees beside it."""

HIDDEN = (1, 1, 128)


class Memory(NamedTuple):
    """What the network remembers of the windows before: its LSTM's two states and their last samples."""

    h: NDArray[np.float32]
    c: NDArray[np.float32]
    context: Samples


def blank() -> Memory:
    """The memory of nothing."""
    return Memory(np.zeros(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32), np.zeros(CONTEXT, np.float32))


class Vad:
    """The network, which any number of streams share: what it remembers of each is theirs to keep."""

    def __init__(self) -> None:
        from faster_whisper.vad import get_vad_model

        self._session: Any = get_vad_model().session

    def listen(self, windows: Samples, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """The probability of speech in each of `windows` (n, WINDOW), and what is to be remembered."""
        contexts = np.concatenate((memory.context[None], windows[:-1, -CONTEXT:]))
        sound = np.concatenate((contexts, windows), axis=1)
        found, h, c = self._session.run(None, {"input": sound, "h": memory.h, "c": memory.c})
        return found.reshape(-1), Memory(h, c, windows[-1, -CONTEXT:])
