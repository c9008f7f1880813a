"""Sentences become sound, paced as it is heard, with marks, and always one last word."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from pipeline import request
from pipeline.messages import Encoding, Voice
from pipeline.stage import LATE, Settled, Stream
from pipeline.topics import SPEECH_OUT
from pipeline.voice import RATE, Sentence, Spoken
from stages import g711
from stages.postprocess.speak.encode import PIECE, count
from stages.postprocess.speak.metrics import SpeakMetrics
from stages.postprocess.speak.stage import SpeakStage, speak_stage, stopped
from tests.stages.postprocess.speak.fakes import (
    FAILURE,
    LETTER,
    Clock,
    FakeSynthesizer,
    sentences,
    settle,
    spoken,
)

TWO = ("One two, ", "three four. ")


def make_stage(synthesizer: FakeSynthesizer | None = None, clock: Clock | None = None, **options: Any) -> SpeakStage:
    """A stage on fakes; without a clock it does not wait."""
    clock = clock or Clock()
    return SpeakStage(synthesizer or FakeSynthesizer(), clock=clock, sleep=clock.sleep, **options)


async def all_of(stage: SpeakStage, *messages: Sentence) -> list[Spoken]:
    """What is said, whenever."""
    return [message for _, message in await spoken(stage, messages)]


def sound(messages: list[Spoken]) -> bytes:
    """The sound of `messages`, each of which begins where the one before ended, and only the last of which says so."""
    data = b""
    for message in messages:
        assert message.at == len(data) // 2
        data += message.data
    assert [message.last for message in messages] == [False] * (len(messages) - 1) + [True]
    return data


def letters(data: bytes) -> str:
    """What the fake synthesizer said in `data`; a pause is a `_`."""
    levels = np.frombuffer(data, np.int16)
    changes = np.flatnonzero(np.diff(levels)) + 1
    runs = np.split(levels, changes)
    return "".join((chr(run[0]) if run[0] else "_") * max(1, round(len(run) / LETTER)) for run in runs)


async def test_sentences_are_said_one_after_the_other() -> None:
    """Each sentence is heard, with a short pause after a clause and a longer one after a sentence; none at the end."""
    messages = await all_of(make_stage(), *sentences(*TWO, "Five"))

    assert letters(sound(messages)) == "One two,_three four.___Five"
    assert all(len(message.data) <= 2 * PIECE for message in messages)
    assert messages[-1] == Spoken("s", "t", count(sound(messages), "pcm16"), last=True)


async def test_marks_tell_what_was_said_where() -> None:
    """Where a word begins, all before it has been said; where a sentence's pause begins, all of it."""
    messages = await all_of(make_stage(), *sentences(*TWO, "Five"))

    marks = [mark for message in messages for mark in message.marks]
    pause = round(0.06 * RATE), round(0.28 * RATE)
    second = 8 * LETTER + pause[0]
    third = second + 11 * LETTER + pause[1]
    assert marks == [
        (4, 4 * LETTER),
        (9, 8 * LETTER),
        (15, second + 6 * LETTER),
        (21, second + 11 * LETTER),
        (25, third + 4 * LETTER),
    ]
    for message in messages:
        assert all(message.at <= at <= message.at + len(message.data) // 2 for _, at in message.marks)


async def test_markup_is_not_said_and_marks_skip_it() -> None:
    """What is said has no markup; the marks are places in the text that was written."""
    synthesizer = FakeSynthesizer()
    text = "**Bold** [link](http://x.y) 😀 end."

    messages = await all_of(make_stage(synthesizer), *sentences("So. ", text))

    assert [said for said, _, _ in synthesizer.said] == ["So.", "Bold link  end."]
    places = [characters - 4 for message in messages for characters, _ in message.marks if characters > 4]
    assert places == [text.index("link"), text.index("end"), len(text)]


@pytest.mark.parametrize("texts", [("",), ("😀 ",), ("```\n", ""), ("...",)])
async def test_what_cannot_be_said_has_no_sound(texts: tuple[str, ...]) -> None:
    """An answer without words is one last word, and the synthesizer is not asked."""
    synthesizer = FakeSynthesizer()

    assert await all_of(make_stage(synthesizer), *sentences(*texts)) == [Spoken("s", "t", 0, last=True)]
    assert synthesizer.said == []


async def test_voice_and_speed_are_asked_for() -> None:
    """The synthesizer gets the client's voice and speed, as far as there is such a speed; pauses go with it."""
    synthesizer = FakeSynthesizer()
    stage = make_stage(synthesizer)
    slow = await all_of(stage, *sentences("One. ", "Two", voice=Voice("marin", 0.5)))
    await all_of(stage, *sentences("One. ", voice=Voice("", 9.0)))

    assert synthesizer.said == [("One.", "marin", 0.5), ("Two", "marin", 0.5), ("One.", "", 1.5)]
    assert len(sound(slow)) // 2 == 7 * LETTER + round(0.56 * RATE)


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
async def test_telephone_encodings(encoding: g711.Law) -> None:
    """The same sound at 8 kHz in G.711, at the same positions and with the same marks."""
    plain = await all_of(make_stage(), *sentences(*TWO, "Five"))

    messages = await all_of(make_stage(), *sentences(*TWO, "Five", voice=Voice(encoding=encoding)))

    end = 0
    for message in messages:
        assert message.at == end
        end += count(message.data, encoding)
    assert end == len(sound(plain)) // 2
    assert [mark for one in messages for mark in one.marks] == [mark for one in plain for mark in one.marks]
    data = b"".join(message.data for message in messages)
    middle = [g711.decode(data, encoding)[(n * LETTER + LETTER // 2) // 3] for n in range(7)]
    assert np.allclose(middle, [ord(letter) for letter in "One two"], atol=9)


async def test_sound_is_published_as_it_is_heard() -> None:
    """The first pieces come at once, as far as the lead goes; after that each comes so long before it is heard."""
    clock = Clock()

    heard = await spoken(make_stage(clock=clock, lead_s=0.5), sentences("Hello there, how are you? "), clock)

    times = [(when - 1_000.0, message.at / RATE) for when, message in heard if message.data]
    assert times[0] == (0.0, 0.0)
    assert [when for when, at in times if at <= 0.5] == [0.0] * 7
    for when, at in times:
        assert when == pytest.approx(max(0.0, at - 0.5))
    assert heard[-1][0] == heard[-2][0]


async def test_late_sentence_shifts_the_pace() -> None:
    """When all was heard before the next sentence came, no more than the lead of it comes at once."""
    clock = Clock()
    texts = sentences("One two, ", "three four five six. ", since=[1_000.0, 1_005.0])

    async def ticking() -> None:
        while True:
            await settle()
            clock.now += 0.01

    task = asyncio.create_task(ticking())
    heard = await spoken(make_stage(clock=clock, lead_s=0.5), texts, clock)
    task.cancel()

    begin = 8 * LETTER + round(0.06 * RATE)
    late = [(when, one) for when, one in heard if one.data and one.at >= begin]
    times = [(when - 1_005.0, (one.at - begin) / RATE) for when, one in late]
    assert times[0][1] == 0
    assert 0 <= times[0][0] < 0.2
    for when, at in times:
        assert when >= at - 0.5 - 0.001


async def test_who_speaks_it_again_catches_up() -> None:
    """After another's death, what has been due comes at once, sentences that came late considered; then it goes on."""
    clock = Clock(1_008.0)
    texts = sentences("One two, ", "three four five six seven eight nine ten. ", since=[1_000.0, 1_005.0])

    heard = await spoken(make_stage(clock=clock, lead_s=0.5), texts, clock)

    begin = 8 * LETTER / RATE + 0.06
    due = begin + 3.0 + 0.5
    assert {when for when, message in heard if message.data and message.at / RATE <= due} == {1_008.0}
    late = [(when, message.at / RATE) for when, message in heard if message.data and message.at / RATE > due]
    assert late
    for when, at in late:
        assert when == pytest.approx(1_005.0 + at - begin - 0.5)


async def test_same_sound_when_begun_anew() -> None:
    """Who speaks the answer again, later and with sentences that come twice, says the same at the same positions."""
    texts = sentences(*TWO, "Five")
    first = await all_of(make_stage(), *texts)

    anew = await all_of(make_stage(clock=Clock(1_020.0)), texts[0], texts[0], texts[1], texts[0], texts[1], texts[2])

    assert anew == first


async def test_synthesis_runs_ahead_and_no_further() -> None:
    """The next sentence is spoken while the one before is heard, but not more than was allowed."""
    clock, synthesizer, at = Clock(), FakeSynthesizer(), 0
    stage = make_stage(synthesizer, clock, lead_s=0.5, ahead_s=1.0)
    texts = sentences(*["word word."] * 20)

    async def source() -> Stream:
        for message in texts:
            yield message

    async with aclosing(stage(source())) as stream:
        async for message in stream:
            await settle()
            at = at if isinstance(message, Settled) else message.at
            assert len(synthesizer.said) <= at / RATE + 1.0 / 1.28 + 2.5
    assert len(synthesizer.said) == 20


async def test_who_runs_it_need_not_hold_what_was_said() -> None:
    """Once a second of sound that is told; no sentence is done with before the end, so that all can be said again."""
    told = []

    async def source() -> Stream:
        for message in sentences("word word word. ", "word word."):
            yield message

    async with asyncio.timeout(10), aclosing(make_stage()(source())) as stream:
        told = [message async for message in stream]
    places = [n for n, message in enumerate(told) if isinstance(message, Settled)]
    assert {message for message in told if isinstance(message, Settled)} == {Settled(0)}
    assert [told[n - 1].at // RATE for n in places] == [0, 1]
    assert max(b - a for a, b in zip([0, *places], [*places, len(told)], strict=True)) <= RATE / PIECE + 2


async def test_the_one_that_is_needed_first_is_spoken_first() -> None:
    """Of several answers the beginning of a new one goes before what others will hear later."""
    synthesizer = FakeSynthesizer(letters=1)
    stage = make_stage(synthesizer, Clock(), lead_s=100.0, ahead_s=100.0)
    long = sentences("Well, " * 4, "this is A. ", "And A again. ")

    async def hear(messages: list[Sentence]) -> None:
        await spoken(stage, messages)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hear(long))
        while len(synthesizer.said) < 1:  # noqa: ASYNC110 (a moment)
            await asyncio.sleep(0)
        tasks.create_task(hear(sentences("One.")))
        tasks.create_task(hear(sentences("Two.")))

    order = [text for text, _, _ in synthesizer.said]
    assert order.index("One.") < order.index("And A again.")
    assert order.index("Two.") < order.index("And A again.")


async def test_place_is_not_held_while_it_is_heard() -> None:
    """A long sentence that is heard for long keeps nobody from speaking, although only one can at a time."""
    clock = Clock()
    synthesizer = FakeSynthesizer()
    stage = make_stage(synthesizer, clock, lead_s=0.1, ahead_s=0.2)

    async def source() -> Stream:
        yield sentences("A sentence that is heard for five seconds and more, and that is long.", last=False)[0]
        await asyncio.Event().wait()

    async with aclosing(stage(source())) as stream:
        await anext(stream)
        await settle()
        assert len(await spoken(stage, sentences("Other."))) > 3


async def test_all_sentences_are_read_at_once() -> None:
    """Sentences do not wait in the log until it is their turn: those of others are behind them."""
    taken = 0

    async def source() -> Stream:
        nonlocal taken
        for message in sentences(*["A long sentence it is."] * 50):
            taken += 1
            yield message

    async with aclosing(make_stage()(source())) as stream:
        await anext(stream)
        await settle()
        assert taken == 50


async def test_turn_that_a_former_owner_finished() -> None:
    """When only the end of an answer is read again, it was spoken before: nothing is said."""
    assert await all_of(make_stage(), *sentences(*TWO)[1:]) == []
    assert await all_of(make_stage()) == []


@pytest.mark.parametrize("failure", [FAILURE, RuntimeError("broken")])
async def test_failure_is_told_in_the_last_word(failure: Exception) -> None:
    """What was spoken before stands, the last word says why there is no more, and the failure is counted."""
    metrics = SpeakMetrics(registry := CollectorRegistry())
    stage = make_stage(FakeSynthesizer(fails=failure, letters=3), metrics=metrics)

    *pieces, last = await all_of(stage, *sentences("One. ", "Two three! ", "Four. "))

    assert letters(b"".join(piece.data for piece in pieces)) == "One.___Two three"
    assert last.problem is not None
    assert last.problem.code == "speech_failed"
    assert "broken" not in last.problem.message
    assert last.at == sum(count(piece.data, "pcm16") for piece in pieces)
    assert registry.get_sample_value("penstock_speak_failed_total") == 1


async def test_missing_sentence_is_a_failure() -> None:
    """A gap is never papered over."""
    first, _, third = sentences(*TWO, "Five")

    *_, last = await all_of(make_stage(), first, third)

    assert last.problem is not None
    assert "sentence 1 is missing" in last.problem.message


async def test_sentences_are_not_waited_for_beyond_the_deadline() -> None:
    """An answer whose end never comes is ended soon after its turn's deadline; what came is heard to its end."""
    clock = Clock()
    request.begin(request.Request(deadline=clock.now - 1.99))

    async def source() -> Stream:
        yield sentences("A sentence of three seconds it is.", last=False)[0]
        await asyncio.Event().wait()

    async with asyncio.timeout(10), aclosing(make_stage(clock=clock)(source())) as stream:
        *pieces, last = [message async for message in stream if isinstance(message, Spoken)]

    assert letters(b"".join(piece.data for piece in pieces)) == "A sentence of three seconds it is.___"
    assert last.problem == LATE


async def test_cancelling_ends_the_synthesis() -> None:
    """Who stops listening ends it all at once: synthesizer, reader and those in between; the waste is counted."""
    metrics = SpeakMetrics(registry := CollectorRegistry())
    synthesizer = FakeSynthesizer(letters=2)
    clock = Clock()
    stage = make_stage(synthesizer, clock, metrics=metrics, lead_s=1.0, ahead_s=0.5)
    before = asyncio.all_tasks()

    async def source() -> Stream:
        yield sentences("word " * 40, last=False)[0]
        await asyncio.Event().wait()

    async with aclosing(stage(source())) as stream:
        for _ in range(10):
            await anext(stream)
        await settle()

    assert synthesizer.closed == 1
    assert asyncio.all_tasks() == before
    unheard = registry.get_sample_value("penstock_speak_cancelled_audio_seconds_total")
    assert unheard is not None
    assert 0.8 + 0.4 <= unheard <= 0.8 + 0.7


async def test_metrics_of_a_whole_answer() -> None:
    """Of an answer that is spoken to its end it is known how much sound was made, and how soon; nothing was wasted."""
    metrics = SpeakMetrics(registry := CollectorRegistry())

    await all_of(make_stage(metrics=metrics), *sentences(*TWO))

    value = registry.get_sample_value
    assert value("penstock_speak_audio_seconds_total") == pytest.approx(1.9)
    assert value("penstock_speak_cancelled_audio_seconds_total") == 0
    assert value("penstock_speak_waiting") == 0
    for name in ("first_audio_seconds", "synthesis_seconds", "real_time_factor"):
        assert value(f"penstock_speak_{name}_count") == (1 if name.startswith("first") else 2)


@pytest.mark.parametrize(("encoding", "size"), [("pcm16", 960), ("pcmu", 160), ("pcma", 160)])
def test_last_word_on_an_answer_that_is_given_up(encoding: Encoding, size: int) -> None:
    """It stands where the last published piece ends; a deadline is told, a cancel is not worth a word."""
    (first,) = sentences("One. ", voice=Voice(encoding=encoding))
    pieces = [Spoken("s", "t", 0, bytes(size)), Spoken("s", "t", 480, bytes(size))]

    assert stopped(first, pieces, "cancelled") == Spoken("s", "t", 960, last=True)
    assert stopped(first, [], "deadline") == Spoken("s", "t", 0, last=True, problem=LATE)


def test_stage_for_the_loop() -> None:
    """It reads sentences up to the last, may be cancelled, and may be heard beyond the turn's deadline."""
    stage = speak_stage(make_stage())

    assert (stage.name, stage.reads, stage.cancellable) == ("speak", SPEECH_OUT, True)
    assert [stage.last(one) for one in sentences(*TWO)] == [False, True]
    assert stage.grace >= 600
