"""More sessions than the recogniser can follow: the words on the way get fewer, what ends a turn keeps its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from pipeline.voice import RATE, Sound, Transcribed
from stages.preprocess.speech.metrics import SpeechMetrics
from stages.preprocess.speech.stage import SpeechStage
from stages.preprocess.speech.transcriber import Transcriber
from tests.stages.preprocess.speech.fakes import SERVER, PowerVad, ToneRecogniser, say, silence

SESSIONS = 24
PIECE = RATE // 20
SPREAD_S = 1.5


async def _live(name: str, sound: np.ndarray, begins: float) -> AsyncGenerator[Sound, None]:
    """`sound` piece by piece, when it would have been recorded."""
    for at in range(0, len(sound), PIECE):
        await asyncio.sleep(begins + (at + PIECE) / RATE - time.monotonic())
        yield Sound(name, name, at, sound[at : at + PIECE].tobytes(), SERVER)
    yield Sound(name, name, len(sound), b"", SERVER, "end")


@pytest.mark.slow
async def test_final_pieces_keep_their_time_when_there_is_too_much_to_do(recogniser: ToneRecogniser) -> None:
    """Every turn is told, right and once; partials were dropped, and finals waited less than those that were not.

    A pause in the middle of what is said asks for words that do not count in the end: those do not hold up others.
    """
    recogniser.takes_s = 0.04
    sound = np.concatenate([silence(0.4), say("i want to"), silence(0.24), say("go home please"), silence(0.8)])
    registry = CollectorRegistry()
    texts: list[str] = []

    def value(name: str, kind: str = "") -> float:
        return registry.get_sample_value(f"penstock_speech_{name}", {"kind": kind} if kind else {}) or 0.0

    async with asyncio.timeout(60), Transcriber(recogniser, metrics=SpeechMetrics(registry)) as transcriber:
        stage = SpeechStage(PowerVad(), transcriber)

        async def one(number: int, begins: float) -> None:
            told = [output async for output in stage(_live(f"s{number}", sound, begins))]
            texts.extend(output.text for output in told if isinstance(output, Transcribed))

        async with asyncio.TaskGroup() as tasks:
            for number in range(SESSIONS):
                tasks.create_task(one(number, time.monotonic() + SPREAD_S * number / SESSIONS))

    assert texts == ["i want to go home please"] * SESSIONS
    assert value("refused_total") == 0
    assert value("partials_dropped_total") > 0
    final, partial = (
        value("queue_seconds_sum", kind) / max(value("queue_seconds_count", kind), 1.0) for kind in ("final", "partial")
    )
    assert final < partial or not value("queue_seconds_count", "partial")
