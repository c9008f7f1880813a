"""The speech stage: all Sounds of a stream in; its turns, their words as they come, and what was said out.

An open-ended folding stage: a stream is one call, which may go on for hours, and what need not be read again is settled
as it goes. Here is the waiting: for the next sound, and for the recogniser's answers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from pipeline import request
from pipeline.messages import Message
from pipeline.stage import Stage, Stream
from pipeline.topics import AUDIO
from pipeline.voice import Sound
from stages.preprocess.speech.ear import Network
from stages.preprocess.speech.hearing import Hearing
from stages.preprocess.speech.transcriber import Transcriber

IDLE_S = 60.0
"""Seconds after which a stream of which nothing comes has ended; the gateway ends its own sooner."""


class SpeechStage:
    """Find and transcribe the turns of streams.

    Args:
        network: Tells speech from everything else.
        transcriber: Recognises what is said.
        language: What is spoken where a stream does not say so ("": find out).
        step_ms: Milliseconds of sound from one transcript of a growing piece to the next.
    """

    def __init__(self, network: Network, transcriber: Transcriber, *, language: str = "", step_ms: int = 400) -> None:
        self._network, self._transcriber = network, transcriber
        self._language, self._step_ms = language, step_ms

    async def __call__(self, messages: Stream) -> Stream:
        """Tell what is heard in one stream, and how much of it is settled."""
        first = await anext(messages, None)
        if first is None:
            return
        hearing = self._hearing(first)
        reading: asyncio.Task[Sound | None] | None = None
        try:
            await hearing.take(first)
            while True:
                told = list(hearing.go_on())
                waits: list[asyncio.Future[Any]] = [*hearing.unanswered]
                for output in told:
                    yield output
                if hearing.over:
                    return
                if hearing.hungry:
                    reading = reading or asyncio.create_task(anext(messages, None), name="speech reads on")
                    waits.append(reading)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if reading is not None and reading.done() and hearing.hungry:
                    sound, reading = reading.result(), None
                    await hearing.take(sound)
        finally:
            hearing.give_up()
            await _cancelled(reading)

    def _hearing(self, first: Sound) -> Hearing:
        tenant = request.current().tenant
        return Hearing(
            first, self._network, self._transcriber, tenant=tenant, language=self._language, step_ms=self._step_ms
        )


async def _cancelled(reading: asyncio.Task[Sound | None] | None) -> None:
    """Read no further."""
    if reading is not None:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


def speech_stage(stage: SpeechStage, *, concurrency: int = 256, idle_s: float = IDLE_S) -> Stage:
    """The stage for the loop; a stream ends with the message that says so."""
    return Stage(
        name="speech",
        reads=AUDIO,
        folding=stage,
        last=_is_last,
        cancellable=False,
        concurrency=concurrency,
        idle_s=idle_s,
    )


def _is_last(message: Message) -> bool:
    return isinstance(message, Sound) and message.then == "end"
