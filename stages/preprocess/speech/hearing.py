"""One stream in the stage: its sounds through the ear to the listener, and what the listener asks to the transcriber.

Goes on as far as it can without waiting; the stage waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence

from pipeline.errors import TurnRejected
from pipeline.messages import Message, Problem
from pipeline.stage import Settled
from pipeline.voice import RATE, Listening, Sound
from stages.preprocess.speech.ear import FRAME, Ear, Frame, Network
from stages.preprocess.speech.listener import Listener
from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.recogniser import Task, Urgency
from stages.preprocess.speech.resample import Samples
from stages.preprocess.speech.times import Times
from stages.preprocess.speech.transcriber import Transcriber

LARGE = 8 * FRAME
"""Positions from which on a sound is heard in a thread: it takes milliseconds."""

FAILED = Problem("transcription_failed", "the speech could not be recognised")


class Hearing:
    """The stream that begins with `first`.

    Args:
        first: The first sound that is read of it.
        network: Tells speech from everything else.
        transcriber: Recognises what is said.
        tenant: Whose it is.
        language: What is spoken if the stream does not say so ("": find out).
        step_ms: Milliseconds of sound from one transcript of a growing piece to the next.
    """

    def __init__(
        self, first: Sound, network: Network, transcriber: Transcriber, *, tenant: str, language: str, step_ms: int
    ) -> None:
        self._network, self._transcriber = network, transcriber
        self._session, self._tenant, self._language = first.session, tenant, language
        self._listener = Listener(
            first, window_s=transcriber.window_s, step_ms=step_ms, ask=self._ask, explain=_explain
        )
        self._ear = Ear(network, first.how.encoding, first.at)
        self._sound: Sound | None = None
        self._broken = False
        self._frames: deque[Frame] = deque()
        self._ends: deque[int] = deque()
        self._settled = 0
        self._ended = False
        self._times = Times(transcriber.metrics)

    @property
    def hungry(self) -> bool:
        """Whether all that came has been heard, and more may come."""
        return self._sound is None and not self._ended

    @property
    def over(self) -> bool:
        """Whether the stream has ended and all is told."""
        return self._ended and self._listener.told

    @property
    def unanswered(self) -> list[Answer]:
        """What was asked and is not answered."""
        return self._listener.unanswered

    async def take(self, sound: Sound | None) -> None:
        """The next sound; None: there is none."""
        if sound is None:
            self._ended = True
            return
        if self._ear.encoding != sound.how.encoding or sound.at - self._ear.at >= self._ear.sample:
            self._ear = Ear(self._network, sound.how.encoding, sound.at)
            self._broken = True
        data = sound.data[self._ear.size(max(self._ear.at - sound.at, 0)) :]  # what came twice is heard once
        began, at = time.perf_counter(), self._ear.at
        large = self._ear.positions(len(data)) >= LARGE
        self._frames.extend(await asyncio.to_thread(self._ear.hear, data) if large else self._ear.hear(data))
        self._sound = sound
        self._ends.append(self._ear.at)
        self._times.heard(self._ear.at, (self._ear.at - at) / RATE, time.perf_counter() - began)

    def go_on(self) -> Iterator[Message | Settled]:
        """Hear what came, up to where an answer is needed, and tell what became certain."""
        yield from self._times.noted(self._heard())
        count = self._settled
        while self._ends and self._ends[0] <= self._listener.settled:
            self._ends.popleft()
            self._settled += 1
        if self._settled > count:
            yield Settled(self._settled)

    def give_up(self) -> None:
        """Nobody listens any more."""
        self._listener.give_up()

    def _heard(self) -> Iterator[Message]:
        yield from self._listener.collect()
        while self._sound is not None and not self._listener.blocked:
            yield from self._step(self._sound)
            yield from self._listener.collect()
        if self._ended and not self._listener.blocked:
            yield from self._listener.stop()
            yield from self._listener.collect()

    def _step(self, sound: Sound) -> Iterator[Message]:
        """The next frame, or what comes after the last one."""
        if self._broken:
            self._broken = False
            yield from self._listener.skip(sound.at)
        elif self._frames:
            yield from self._listener.frame(self._frames.popleft(), sound.how)
        else:
            self._sound = None
            self._then(sound)

    def _then(self, sound: Sound) -> None:
        if sound.then == "commit":
            self._times.ended(sound.item)
            self._listener.commit(sound.item, sound.how)
        elif sound.then == "clear":
            self._listener.clear()
        self._ended = sound.then == "end"

    def _ask(self, frames: Sequence[Samples], urgency: Urgency, how: Listening, language: str) -> Answer:
        task = Task(
            tuple(frames),
            urgency,
            session=self._session,
            tenant=self._tenant,
            language=how.language or language or self._language,
            hint=how.hint,
        )
        return self._transcriber.ask(task)


def _explain(error: BaseException) -> Problem:
    """What a client is told of `error`; the log has it already."""
    if isinstance(error, TurnRejected):
        return Problem(error.code, str(error), error.param, getattr(error, "retry_after", None))
    return FAILED
