"""One sentence of an answer as sound: what is said of it, spoken, encoded and cut into pieces, and a pause after it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pipeline.errors import SynthesisFailed
from pipeline.voice import RATE, Sentence
from stages.postprocess.speak.ahead import ahead
from stages.postprocess.speak.encode import Piece, Utterance
from stages.postprocess.speak.gate import Gate
from stages.postprocess.speak.metrics import SpeakMetrics
from stages.postprocess.speak.synthesizer import Sound, Synthesizer
from stages.postprocess.spoken import Said, speakable, spoken

log = logging.getLogger(__name__)

CLAUSE_PAUSE_S, SENTENCE_PAUSE_S, LINE_PAUSE_S = 0.06, 0.28, 0.4
"""Seconds of silence after a piece of an answer, at the usual speed; none after what was cut where it grew too long."""

SLOWEST, FASTEST = 0.25, 1.5
"""Times as fast as usual."""


class Aloud:
    """Reads sentences aloud by `synthesizer`, and counts that in `metrics`."""

    def __init__(self, synthesizer: Synthesizer, metrics: SpeakMetrics) -> None:
        self._synthesizer = synthesizer
        self._metrics = metrics
        self._gate = Gate(synthesizer.at_once)

    async def pieces(self, sentence: Sentence, utterance: Utterance, due: float) -> AsyncGenerator[Piece, None]:
        """The pieces of `utterance`, which is to become `sentence`; none, if nothing is said in it.

        Of all that are to be spoken, the one goes first that is `due` first, in seconds since 1970.

        Raises:
            SynthesisFailed: it could not be spoken to its end.
        """
        if not speakable(sentence.text):
            return
        said = spoken(sentence.text)
        speed = min(max(sentence.voice.speed, SLOWEST), FASTEST)
        making = self._sounds(said.text.rstrip(), sentence.voice.name, speed, due)
        async with aclosing(ahead(making, 0)) as sounds:  # or its place would be held while it is heard
            async for sound in sounds:
                for piece in utterance.add(_placed(sound, said, sentence)):
                    yield piece
        pause = 0.0 if sentence.last else pause_after(sentence.text) / speed
        for piece in utterance.finish(sentence.at + len(sentence.text), pause):
            yield piece

    async def _sounds(self, text: str, voice: str, speed: float, due: float) -> AsyncGenerator[Sound, None]:
        """What the synthesizer makes of `text`, when it is its turn; measured."""
        samples = 0
        with self._metrics.waiting.track_inprogress():
            async with self._gate.place(due), aclosing(self._synthesizer.say(text, voice, speed)) as sounds:
                begun = time.perf_counter()
                while (sound := await _next(sounds)) is not None:
                    samples += len(sound.samples)
                    yield sound
                took = time.perf_counter() - begun
        self._metrics.synthesis.observe(took)
        self._metrics.made.inc(samples / RATE)
        if samples:
            self._metrics.factor.observe(took * RATE / samples)


async def _next(sounds: AsyncGenerator[Sound, None]) -> Sound | None:
    """The next sound, or None at the end.

    Raises:
        SynthesisFailed: whatever went wrong, so that the answer's text goes on in any case.
    """
    try:
        return await anext(sounds, None)
    except SynthesisFailed:
        raise
    except Exception as error:
        log.exception("the synthesizer failed")
        raise SynthesisFailed("the speech synthesis failed") from error


def pause_after(text: str) -> float:
    """Seconds of silence between `text` and what follows it, at the usual speed."""
    words = text.rstrip()
    if "\n" in text[len(words) :]:
        return LINE_PAUSE_S
    if words.endswith((",", ";", ":", "–", "—", " -", "，", "、", "；", "：")):
        return CLAUSE_PAUSE_S
    return 0.0 if words[-1:].isalnum() else SENTENCE_PAUSE_S


def _placed(sound: Sound, said: Said, sentence: Sentence) -> Sound:
    """`sound`, whose marks tell the characters of the answer."""
    marks = [(sentence.at + said.places[characters], sample) for characters, sample in sound.marks]
    return Sound(sound.samples, tuple(marks))
