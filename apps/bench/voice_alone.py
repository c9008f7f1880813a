"""Transcription without pipe and without a clock: what a model hears in a whole clip, and computation left uncounted.

Computation-unaware means that no sound is spoken while something is computed: what is shown, is shown at the position
up to which sound had come. What then lags behind is the policy's doing alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.bench.voice_clips import Clip
from apps.bench.voice_ours import PIECE, SILENCE_MS
from apps.bench.voice_peers import LEAD, LEAD_S, at_16k
from apps.bench.voice_plain import EVERY_S
from apps.bench.voice_score import Heard, Shown, words_of
from apps.settings import AsrSettings
from apps.speech import Ears, load_ears
from pipeline.voice import RATE, Detection, Listening, Sound, Transcribed, Transcript
from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.recogniser import Task
from stages.preprocess.speech.stage import SpeechStage
from stages.preprocess.speech.transcriber import Transcriber

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

POLL_S = 0.001
IDLE_POLLS = 3
"""So often in a row nothing must be under way: then what was answered has been told, too."""
TAIL = 2 * RATE
"""Silence after a clip, in samples."""


def floats(clip: Clip) -> NDArray[np.float32]:
    """The clip as faster-whisper wants it: 16 kHz, within ±1."""
    return np.frombuffer(at_16k(clip.sound), np.int16).astype(np.float32) / np.float32(32768)


def whole(model: WhisperModel, clip: Clip) -> str:
    """What faster-whisper hears in all of a clip, by its defaults."""
    segments, _ = model.transcribe(floats(clip), language="en")
    return "".join(segment.text for segment in segments).strip()


def with_ends(model: WhisperModel, clip: Clip) -> Clip:
    """The clip with the ends of its words, where nobody told them: as the model aligns them, if it hears all words."""
    if clip.ends:
        return clip
    segments, _ = model.transcribe(floats(clip), language="en", word_timestamps=True)
    found = [
        (word, float(heard.end)) for segment in segments for heard in segment.words for word in words_of(heard.word)
    ]
    said = words_of(clip.text)
    return clip._replace(ends=tuple(end for _, end in found)) if [word for word, _ in found] == said else clip


def plain(model: WhisperModel, clip: Clip) -> Heard:
    """The plain loop, whose transcribing takes no time."""
    sound, step = floats(clip), int(EVERY_S * 16_000)
    shown = []
    for end in range(step, len(sound), step):
        segments, _ = model.transcribe(sound[:end], language="en")
        shown.append(Shown(end / 16_000, "".join(segment.text for segment in segments).strip()))
    return Heard(tuple(shown), whole(model, clip), clip.seconds)


class Counting(Transcriber):
    """A transcriber that knows how many answers are awaited."""

    awaited = 0

    def ask(self, task: Task) -> Answer:
        """See `Transcriber.ask`."""
        answer = super().ask(task)
        self.awaited += 1
        answer.add_done_callback(self._answered)
        return answer

    def _answered(self, _answer: Answer) -> None:
        self.awaited -= 1


class Alone:
    """Our speech stage, which is given its next sound when it has done with the one before."""

    def __init__(self, ears: Ears, asr: AsrSettings, transcriber: Counting) -> None:
        self._stage = SpeechStage(ears.vad, transcriber, language=asr.language, step_ms=asr.step_ms)
        self._transcriber = transcriber
        self._at = 0

    async def hear(self, clip: Clip) -> Heard:
        """What comes of a clip, at the positions of its sound."""
        shown: list[Shown] = []
        done, growing, final = "", "", clip.seconds
        async for message in self._stage(self._sounds(clip)):
            if isinstance(message, Transcript):
                growing += message.text
            elif isinstance(message, Transcribed):
                done, growing, final = f"{done} {message.text}".strip(), "", self._at / RATE - LEAD_S
            shown.append(Shown(self._at / RATE - LEAD_S, f"{done} {growing}".strip()))
        return Heard(tuple(shown), done, final)

    async def _sounds(self, clip: Clip) -> AsyncGenerator[Any, None]:
        how = Listening(detection=Detection(silence_ms=SILENCE_MS), language="en")
        sound = LEAD + clip.sound + bytes(2 * TAIL)
        for at in range(0, len(sound) // 2, PIECE):
            await self._idle()
            self._at = at + PIECE
            yield Sound("bench", "audio_bench", at, sound[2 * at : 2 * (at + PIECE)], how)
        await self._idle()
        yield Sound("bench", "audio_bench", self._at, how=how, then="end")

    async def _idle(self) -> None:
        polls = 0
        while polls < IDLE_POLLS:
            await asyncio.sleep(POLL_S if polls else 0)
            polls = 0 if self._transcriber.awaited else polls + 1


@asynccontextmanager
async def alone(asr: AsrSettings) -> AsyncGenerator[Alone, None]:
    """Our speech stage meanwhile, as it would be in the pipe.

    Raises:
        ModelLoadError: its model cannot be loaded.
    """
    ears = await load_ears(asr)
    transcriber = Counting(ears.recogniser, queue=asr.queue, batch=asr.batch, max_wait_s=asr.max_wait_s)
    async with transcriber:
        yield Alone(ears, asr, transcriber)
