from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from pipeline.errors import Overloaded
from stages.preprocess.speech.metrics import SpeechMetrics
from stages.preprocess.speech.piece import Answer
from stages.preprocess.speech.recogniser import Task, Urgency
from stages.preprocess.speech.transcriber import Transcriber
from tests.stages.preprocess.speech.fakes import ToneRecogniser


def _task(session: str = "a", urgency: Urgency = "final", *, seconds: float = 1.0) -> Task:
    return Task((np.zeros(round(seconds * 16_000), np.float32),), urgency, session)


async def _outcome(answer: Answer) -> object:
    async with asyncio.timeout(5):
        return await answer


async def _busy(transcriber: Transcriber, recogniser: ToneRecogniser) -> Answer:
    """A piece that is being recognised, and does not come to an end before `going`."""
    recogniser.going.clear()
    answer = transcriber.ask(_task("busy"))
    while transcriber.busy_since is None:  # noqa: ASYNC110 - a few times
        await asyncio.sleep(0.001)
    return answer


async def test_it_works_off_the_event_loop(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """The loop goes on while a piece is recognised, which is told by `busy_since`."""
    answer = await _busy(transcriber, recogniser)
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not answer.done()
    recogniser.going.set()
    await _outcome(answer)
    assert transcriber.busy_since is None


async def test_what_waits_shares_a_batch(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """Pieces of several sessions are recognised at once."""
    first = await _busy(transcriber, recogniser)
    more = [transcriber.ask(_task(session)) for session in "bcd"]
    recogniser.going.set()
    await asyncio.gather(*map(_outcome, [first, *more]))
    batches = [batch for batch, _ in recogniser.batches]
    assert batches == [1, 3]


async def test_what_is_not_final_is_soon_done(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """Where pieces take long, words on the way go in small batches, so that final ones need not wait for many."""
    recogniser.takes_s = 0.06
    await asyncio.gather(*(_outcome(transcriber.ask(_task("z"))) for _ in range(6)))
    recogniser.batches.clear()
    first = await _busy(transcriber, recogniser)
    more = [transcriber.ask(_task(session, urgency="partial")) for session in "bcde"]
    recogniser.going.set()
    await asyncio.gather(*map(_outcome, [first, *more]))
    assert max(batch for batch, _ in recogniser.batches) <= 2


async def test_an_eager_piece_is_refused_no_room(recogniser: ToneRecogniser) -> None:
    """It is not counted among those that are needed, and goes before words on the way."""
    async with Transcriber(recogniser, queue=1) as transcriber:
        busy = await _busy(transcriber, recogniser)
        partial, eager = transcriber.ask(_task("b", urgency="partial")), transcriber.ask(_task("c", urgency="eager"))
        final, refused = transcriber.ask(_task("d")), transcriber.ask(_task("e"))
        assert [answer.begun for answer in (busy, final, eager, partial)] == [True, False, False, False]
        assert refused.done()
        recogniser.going.set()
        await asyncio.gather(*map(_outcome, [busy, final, eager, partial]))
        assert [task.session for task in recogniser.tasks] == ["busy", "d", "c", "b"]


async def test_too_many_final_pieces_are_refused_at_once(recogniser: ToneRecogniser) -> None:
    """With a time to come back; what is not final never is, and never fills the queue."""
    async with Transcriber(recogniser, queue=2) as transcriber:
        busy = await _busy(transcriber, recogniser)
        partials = [transcriber.ask(_task(session, urgency="partial")) for session in "xyz"]
        waiting = [transcriber.ask(_task(session)) for session in "bc"]
        with pytest.raises(Overloaded) as refusal:
            await _outcome(transcriber.ask(_task("d")))
        assert refusal.value.retry_after >= 1
        recogniser.going.set()
        await asyncio.gather(*map(_outcome, [busy, *waiting, *partials]))


async def test_a_final_piece_does_not_wait_for_ever(recogniser: ToneRecogniser) -> None:
    """One that has waited too long is refused instead of being recognised."""
    async with Transcriber(recogniser, max_wait_s=0.05) as transcriber:
        busy = await _busy(transcriber, recogniser)
        late = transcriber.ask(_task("b"))
        await asyncio.sleep(0.1)
        recogniser.going.set()
        with pytest.raises(Overloaded, match="not recognised within"):
            await _outcome(late)
        await _outcome(busy)
        assert [task.session for task in recogniser.tasks] == ["busy"]


async def test_partials_rest_while_the_event_loop_is_late(recogniser: ToneRecogniser) -> None:
    """Final pieces do not: where the processor has too much to do, what is nice to have waits first."""
    async with Transcriber(recogniser) as transcriber:
        first = await _busy(transcriber, recogniser)
        recogniser.going.set()
        time.sleep(0.06)  # noqa: ASYNC251 - the event loop has other things to do
        await _outcome(first)
        partial, final = transcriber.ask(_task(urgency="partial")), transcriber.ask(_task())
        await _outcome(final)
        await asyncio.sleep(0.1)
        assert not partial.done()
        await _outcome(partial)


async def test_who_gives_up_costs_nothing(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """A cancelled piece is not recognised; one that is in work ends unheard."""
    running = await _busy(transcriber, recogniser)
    waiting = transcriber.ask(_task("b"))
    running.cancel()
    waiting.cancel()
    recogniser.going.set()
    await _outcome(transcriber.ask(_task("c")))
    assert [task.session for task in recogniser.tasks] == ["busy", "c"]


async def test_a_failure_reaches_who_waits_and_nobody_else(
    transcriber: Transcriber, recogniser: ToneRecogniser, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch fails, is logged, and the next one goes on."""
    recogniser.fails = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        await _outcome(transcriber.ask(_task()))
    assert "the speech recogniser failed at 1 pieces" in caplog.text
    recogniser.fails = None
    await _outcome(transcriber.ask(_task()))


async def test_what_is_counted(recogniser: ToneRecogniser) -> None:
    """Waiting, work, batches, what was dropped and refused, and how long the queue is."""
    registry = CollectorRegistry()
    async with Transcriber(recogniser, queue=1, metrics=SpeechMetrics(registry)) as transcriber:
        busy = await _busy(transcriber, recogniser)
        asked = [transcriber.ask(_task(urgency="partial")) for _ in range(3)]
        final, refused = transcriber.ask(_task()), transcriber.ask(_task())

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"penstock_speech_{name}", labels)

        assert value("queue_pieces", kind="final") == 1
        assert value("queue_pieces", kind="partial") == 1
        recogniser.going.set()
        await asyncio.gather(*map(_outcome, [busy, asked[-1], final]))
        assert isinstance(refused.exception(), Overloaded)
        assert value("partials_dropped_total") == 2
        assert value("refused_total") == 1
        assert value("recognised_pieces_total", kind="final") == 2
        assert value("recognised_sound_seconds_total", kind="partial") == 1.0
        assert value("real_time_factor_count") == 3
        assert value("queue_seconds_count", kind="final") == 2
