"""Piper's neural voices as a synthesizer: a thread, voices from `.onnx` files, at most some of them in memory."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.errors import ModelLoadError, SynthesisFailed
from pipeline.voice import RATE
from stages.postprocess.speak.resample import resample
from stages.postprocess.speak.synthesizer import OPENAI_VOICES, Samples, Sound, spread

if TYPE_CHECKING:
    from piper import PiperVoice

EXTRA = "Piper's voices need `pip install 'penstock[piper]'`"
KEPT = 4
"""Voices in memory; each has some 60 MB or more."""


class PiperSynthesizer:
    """Speaks by the voice in `path`, an `.onnx` file with its `.onnx.json` beside it, or by those in that folder.

    The client's names are those of the files; OpenAI's are given to the voices in turn. What Piper draws at random is
    only the sound and not its length, so that an answer that is spoken again has the same positions.

    Raises:
        ModelLoadError: there is no voice, or it cannot be loaded.
    """

    at_once = 1

    def __init__(self, path: Path) -> None:
        found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise ModelLoadError(str(path), "there is no voice; Piper's are .onnx files with .onnx.json beside them")
        self._files = {file.stem.lower(): file for file in found}
        self._loaded: OrderedDict[Path, PiperVoice] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "piper")
        self._usual(found[0])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def say(self, text: str, voice: str, speed: float) -> AsyncGenerator[Sound, None]:
        """See `Synthesizer.say`."""
        given_up = threading.Event()
        work = asyncio.get_running_loop().run_in_executor
        try:
            samples = await work(self._thread, self._said, text, self.file(voice), speed, given_up)
            yield Sound(samples, tuple(spread(text, len(samples))))
        finally:
            given_up.set()

    def file(self, voice: str) -> Path:
        """Whose file `voice` is."""
        files = list(self._files.values())
        name = voice.lower()
        if name in OPENAI_VOICES:
            return files[OPENAI_VOICES.index(name) % len(files)]
        return self._files.get(name, files[0])

    def _usual(self, file: Path) -> None:
        """Load the first voice now, so that what is wrong with it is told at the start."""
        try:
            self._voice(file)
        except ModuleNotFoundError as error:
            raise ModelLoadError(str(file), EXTRA) from error
        except Exception as error:
            raise ModelLoadError(str(file), f"{type(error).__name__}: {error}") from error

    def _voice(self, file: Path) -> PiperVoice:
        from piper import PiperVoice

        if file not in self._loaded:
            self._loaded[file] = PiperVoice.load(file)
        self._loaded.move_to_end(file)
        if len(self._loaded) > KEPT:
            self._loaded.popitem(last=False)
        return self._loaded[file]

    def _said(self, text: str, file: Path, speed: float, given_up: threading.Event) -> Samples:
        """`text` as sound, or what of it was made until it was `given_up`.

        Raises:
            SynthesisFailed: Piper made nothing of it.
        """
        from piper import SynthesisConfig

        how = SynthesisConfig(length_scale=1 / speed, noise_w_scale=0.0)
        parts: list[Samples] = []
        if not given_up.is_set():
            for chunk in self._voice(file).synthesize(text, how):
                parts.append(resample(chunk.audio_int16_array, chunk.sample_rate, RATE))
                if given_up.is_set():
                    break
        if not parts:
            raise SynthesisFailed("the voice has no sound for it")
        return np.concatenate(parts)
