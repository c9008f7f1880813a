"""The speak stage: the Sentences of an answer in, its sound in Spoken out, as fast as it is heard and a little ahead.

A folding stage that keeps nothing: a new owner speaks the answer again from its beginning, with the same positions, and
what has been due by then comes at once. Knows no synthesizer by name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from pipeline import request
from pipeline.errors import SynthesisFailed
from pipeline.messages import Message, Problem
from pipeline.stage import LATE, Settled, Stage, StopReason, Stream
from pipeline.topics import SPEECH_OUT
from pipeline.voice import RATE, Sentence, Spoken
from stages.postprocess.speak.ahead import ahead
from stages.postprocess.speak.aloud import Aloud
from stages.postprocess.speak.encode import PIECE, Piece, Utterance, count
from stages.postprocess.speak.metrics import SpeakMetrics
from stages.postprocess.speak.pace import Pace
from stages.postprocess.speak.synthesizer import Synthesizer

log = logging.getLogger(__name__)

LONGEST_S = 3600.0
"""Seconds after a turn's deadline in which its answer may still be heard."""

PATIENCE_S = 2.0
"""Seconds after that deadline in which another sentence is waited for."""

HELD = RATE
"""Samples of sound after which the loop is told that it need not hold them: nobody will ask for what was said."""

Said = tuple[Piece, float]
"""A piece of sound, and when the sentence it belongs to was said."""


class SpeakStage:
    """Speaks by `synthesizer`.

    Args:
        synthesizer: Makes the sound.
        lead_s: How many seconds ahead of being heard it is published.
        ahead_s: How many seconds of it are made before that at most, a sentence aside.
        metrics: Counted there.
        clock: The seconds since 1970.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        synthesizer: Synthesizer,
        *,
        lead_s: float = 1.0,
        ahead_s: float = 5.0,
        metrics: SpeakMetrics | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._metrics = metrics or SpeakMetrics()
        self._aloud = Aloud(synthesizer, self._metrics)
        self._lead = lead_s
        self._ahead = max(1, round(ahead_s * RATE / PIECE))
        self._clock, self._sleep = clock, sleep

    async def __call__(self, messages: Stream) -> Stream:
        """Speak the answer whose sentences are `messages`; the last word says why, if it is not spoken to its end.

        Sentences that come again are left out. A turn whose first message is not its beginning was spoken by a former
        owner: nothing is said.
        """
        first = await anext(messages, None)
        if first is None or first.index:
            return
        heard = Hearing(Pace(self._lead), self._metrics, self._clock)
        problem = None
        try:
            async with aclosing(ahead(self._pieces(first, messages, heard), self._ahead)) as pieces:
                async for piece, since in pieces:
                    if wait := heard.wait(piece, since):
                        await self._sleep(wait)
                    heard.publish(piece, since)
                    yield Spoken(first.session, first.turn, piece.at, piece.data, piece.marks)
                    if heard.end // HELD > piece.at // HELD:
                        yield Settled(0)
            heard.complete = True
        except SynthesisFailed as error:
            self._metrics.failed.inc()
            log.warning("turn %s is not spoken to its end: %s", first.turn, error)
            problem = Problem("speech_failed", str(error))
        except TimeoutError:
            problem = LATE
        finally:
            heard.leave()
        yield Spoken(first.session, first.turn, heard.end, last=True, problem=problem)

    async def _pieces(self, first: Sentence, messages: Stream, heard: Hearing) -> AsyncGenerator[Said, None]:
        """The sound of all sentences, one after the other.

        Raises:
            SynthesisFailed: one could not be spoken, or is missing.
            TimeoutError: the next one did not come in time.
        """
        async with aclosing(ahead(_in_order(first, messages, self._clock), 0)) as sentences:
            async for sentence in sentences:
                utterance = Utterance(heard.made, first.voice.encoding)
                async with aclosing(self._aloud.pieces(sentence, utterance, heard.due)) as pieces:
                    async for piece in pieces:
                        heard.made = utterance.end
                        yield piece, sentence.since


class Hearing:
    """How far the sound of one answer has come: `made` and published up to its `end`, in samples."""

    def __init__(self, pace: Pace, metrics: SpeakMetrics, clock: Callable[[], float]) -> None:
        self._pace, self._metrics, self._clock = pace, metrics, clock
        self.made = 0
        self.end = 0
        self.complete = False

    @property
    def due(self) -> float:
        """When what is made next will be heard, in seconds since 1970."""
        return self._pace.needed(self.made, self._clock())

    def wait(self, piece: Piece, since: float) -> float:
        """How many seconds to wait before `piece`, of a sentence that was said at `since`, is published."""
        return self._pace.wait(piece.at, since, self._clock())

    def publish(self, piece: Piece, since: float) -> None:
        """It is published now."""
        if not self.end:
            self._metrics.first.observe(max(0.0, self._clock() - since))
        self.end = piece.at + piece.samples

    def leave(self) -> None:
        """Nothing comes any more: count what nobody has heard, unless all will be."""
        self._metrics.stalled.inc(self._pace.stalls)
        if not self.complete:
            self._metrics.unheard.inc((self.made - self.end) / RATE + self._pace.unheard(self.end, self._clock()))


def speak_stage(stage: SpeakStage, *, concurrency: int = 1024) -> Stage:
    """The stage for the loop. It may speak beyond a turn's deadline, which is that of the text."""
    return Stage(
        name="speak",
        reads=SPEECH_OUT,
        folding=stage,
        last=_is_last,
        stopped=stopped,
        grace=LONGEST_S,
        concurrency=concurrency,
    )


def stopped(message: Message, published: Sequence[Message], reason: StopReason) -> Spoken:
    """The last word on an answer that is given up after what was `published` of it."""
    assert isinstance(message, Sentence)
    pieces = [one for one in published if isinstance(one, Spoken)]
    end = pieces[-1].at + count(pieces[-1].data, message.voice.encoding) if pieces else 0
    return Spoken(message.session, message.turn, end, last=True, problem=LATE if reason == "deadline" else None)


def _is_last(message: Message) -> bool:
    return isinstance(message, Sentence) and message.last


async def _in_order(first: Sentence, messages: Stream, clock: Callable[[], float]) -> AsyncGenerator[Sentence, None]:
    """Each sentence once, up to the last.

    Raises:
        SynthesisFailed: one is missing.
        TimeoutError: the next one did not come before the turn's deadline, or soon after.
    """
    deadline = request.current().deadline + PATIENCE_S
    expected, sentence = 0, first
    while True:
        if sentence.index > expected:
            raise SynthesisFailed(f"sentence {expected} is missing")
        if sentence.index == expected:
            yield sentence
            expected += 1
        if sentence.last:
            return
        async with asyncio.timeout(max(0.0, deadline - clock())):
            following = await anext(messages, None)
        if following is None:
            return
        sentence = following
