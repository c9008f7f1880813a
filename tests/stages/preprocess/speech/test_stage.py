from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.stage import Settled
from pipeline.voice import RATE, Detection, Listening, Sound, SpeechStarted, SpeechStopped, Transcribed, Transcript
from stages import g711
from stages.preprocess.speech import listener
from stages.preprocess.speech.endpoint import TRAIL_MS
from stages.preprocess.speech.recogniser import Task, Transcription, Urgency
from stages.preprocess.speech.stage import SpeechStage, speech_stage
from stages.preprocess.speech.transcriber import Transcriber
from tests.stages.preprocess.speech.fakes import (
    PUSH,
    SERVER,
    PowerVad,
    ToneRecogniser,
    say,
    silence,
    sounds,
    stream,
    tone,
)

MS = RATE // 1000


def _eager(eagerness: Any) -> Listening:
    return Listening(detection=Detection(eagerness=eagerness))


async def _heard(transcriber: Transcriber, messages: Iterable[Sound]) -> list[Any]:
    """All that is said of a stream, but not what is settled."""
    async with asyncio.timeout(20):
        told = [output async for output in SpeechStage(PowerVad(), transcriber)(stream(messages))]
    return [output for output in told if not isinstance(output, Settled)]


def _finals(told: Sequence[Any]) -> list[Transcribed]:
    return [output for output in told if isinstance(output, Transcribed)]


def _texts(told: Sequence[Any]) -> list[str]:
    return [final.text for final in _finals(told)]


def _then(after: Sequence[Sound], then: Any, how: Listening, item: str = "") -> Sound:
    """A sound without any, which ends a turn or the stream."""
    return Sound("s", "audio_1", after[-1].at + len(after[-1].data) // 2, b"", how, then, item)


# ---- turns that are found --------------------------------------------------------------------------------------


async def test_turns_are_found_with_their_words(transcriber: Transcriber) -> None:
    """Each is begun, ended and told once, under one name, with its words where they were said."""
    sound = np.concatenate([silence(1), say("i want to go home"), silence(1.5), say("what time is it"), silence(1)])
    told = await _heard(transcriber, sounds(sound))
    assert _texts(told) == ["i want to go home", "what time is it"]
    begun = [output for output in told if isinstance(output, SpeechStarted)]
    ended = [output for output in told if isinstance(output, SpeechStopped)]
    assert [one.item for one in begun] == [one.item for one in ended] == [one.item for one in _finals(told)]
    assert begun[0].at == pytest.approx(700 * MS, abs=64 * MS)
    assert ended[0].at == pytest.approx((1000 + 1300 + 440) * MS, abs=64 * MS)
    for final, start in zip(_finals(told), (1000, 3800), strict=True):
        expected = [(start + 260 * n) * MS for n in range(len(final.words))]
        assert [word.start for word in final.words] == pytest.approx(expected, abs=30 * MS)
        assert final.language == "en"
    assert _finals(told)[0].samples == ended[0].at - begun[0].at


async def test_words_are_told_while_they_are_said(transcriber: Transcriber) -> None:
    """Partial transcripts add up to the final one, word by word, each after the characters before it."""

    async def live() -> AsyncIterator[Sound]:
        for sound in sounds(np.concatenate([say("one two three four five six seven"), silence(1)])):
            yield sound
            await asyncio.sleep(0.002)

    told = [output async for output in SpeechStage(PowerVad(), transcriber)(live())]  # type: ignore[arg-type]
    partials = [output for output in told if isinstance(output, Transcript)]
    stopped = next(n for n, output in enumerate(told) if isinstance(output, SpeechStopped))
    assert sum(isinstance(output, Transcript) for output in told[:stopped]) >= 3
    text = ""
    for partial in partials:
        assert partial.at == len(text)
        text += partial.text
        assert partial.text == "".join(word.text for word in partial.words)
    assert text == _texts(told)[0] == "one two three four five six seven"


async def test_who_wants_no_partials_gets_none(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """Only the end of a turn is recognised."""
    how = Listening(detection=Detection(), partials=False)
    told = await _heard(transcriber, sounds(np.concatenate([say("one two three four five"), silence(1)]), how))
    assert [type(output) for output in told] == [SpeechStarted, SpeechStopped, Transcribed]
    assert [task.counts for task in recogniser.tasks] == [True]


@pytest.mark.parametrize("how", [SERVER, _eager("high")])
async def test_what_counts_is_the_same_sound_however_fast_it_is_recognised(
    transcriber: Transcriber, recogniser: ToneRecogniser, how: Listening
) -> None:
    """It was asked in the pause, before the turn ended: at its end that is not done again, nor with more of the pause.

    So who reads it again hears the same. With others before it, it is needed before anybody has begun with it.
    """
    sound = sounds(np.concatenate([say("what time is it"), silence(0.3), say("please"), silence(2)]), how)
    quick = _finals(await _heard(transcriber, sound))
    counted = [task.samples for task in recogniser.tasks if task.counts][-1]
    recogniser.tasks.clear()
    recogniser.going.clear()
    asyncio.get_running_loop().call_later(0.2, recogniser.going.set)
    busy = transcriber.ask(Task((np.zeros(512, np.float32),), session="another"))
    slow = _finals(await _heard(transcriber, sound))
    assert slow == quick
    assert [task.samples for task in recogniser.tasks if task.urgency == "final"][-1] == counted
    await busy


@pytest.mark.parametrize(("padding", "quiet"), [(0, 200), (300, 500), (500, 1200)])
async def test_padding_and_silence_are_as_asked(transcriber: Transcriber, padding: int, quiet: int) -> None:
    """A turn begins so long before its speech, and ends so long after it."""
    how = Listening(detection=Detection(padding_ms=padding, silence_ms=quiet))
    told = await _heard(transcriber, sounds(np.concatenate([silence(1), say("go home"), silence(2)]), how))
    started, stopped = told[0], next(output for output in told if isinstance(output, SpeechStopped))
    assert started.at == pytest.approx((1000 - padding) * MS, abs=33 * MS)
    assert stopped.at == pytest.approx((1000 + 520 - 60 + quiet) * MS, abs=66 * MS)


async def test_a_threshold_tells_what_is_speech(transcriber: Transcriber) -> None:
    """Above what the VAD ever says there is none."""
    how = Listening(detection=Detection(threshold=0.99))
    assert await _heard(transcriber, sounds(np.concatenate([say("one two"), silence(1)]), how)) == []


async def test_a_pause_within_a_turn_ends_a_piece_and_loses_no_word(
    transcriber: Transcriber, recogniser: ToneRecogniser
) -> None:
    """What is said after it is recognised by itself, and belongs to the same turn."""
    how = Listening(detection=Detection(silence_ms=700))
    sound = np.concatenate(
        [say("one two three four five six seven eight"), silence(0.45), say("nine zero"), silence(1)]
    )
    told = await _heard(transcriber, sounds(sound, how))
    assert _texts(told) == ["one two three four five six seven eight nine zero"]
    finals = [task for task in recogniser.tasks if task.counts]
    assert [len(task.frames) * 32 < 2600 for task in finals] == [True, True]


@pytest.mark.parametrize("pause", [0.4, 0.44, 0.46, 0.5, 0.6])
async def test_speech_right_behind_a_turn_has_its_padding(
    transcriber: Transcriber, recogniser: ToneRecogniser, pause: float
) -> None:
    """Its first sound may be in the silence that has ended the turn before; positions do not go back for that."""
    told = await _heard(transcriber, sounds(np.concatenate([say("one", 0), silence(pause), say("two"), silence(1)])))
    if (finals := _finals(told))[1:]:
        places = [one.at for one in told if isinstance(one, (SpeechStarted, SpeechStopped))]
        assert places == sorted(places)
        last = [task for task in recogniser.tasks if task.counts][-1]
        before = np.flatnonzero(np.abs(np.concatenate(last.frames)) > 0.01)[0] / 16_000
        assert before >= 0.25
    assert " ".join(final.text for final in finals) == "one two"


async def test_a_knock_is_no_speech(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """A single window is not heard at all; what is too short for a word is not recognised."""
    before = np.zeros(16 * 768 + 100, np.int16)
    assert await _heard(transcriber, sounds(np.concatenate([before, tone(0.02, 1000), silence(1)]))) == []
    told = await _heard(transcriber, sounds(np.concatenate([before, tone(0.04, 1000), silence(1)])))
    assert [type(output) for output in told] == [SpeechStarted, SpeechStopped, Transcribed]
    assert _texts(told) == [""]
    assert recogniser.tasks == []


async def test_the_end_of_the_stream_ends_a_turn(transcriber: Transcriber) -> None:
    """Nothing that was said before it is lost."""
    told = await _heard(transcriber, sounds(say("one two three")))
    assert _texts(told) == ["one two three"]
    assert isinstance(told[-2], Transcript)
    assert sum(isinstance(output, SpeechStopped) for output in told) == 1


async def test_nothing_gives_nothing(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """A stream without any sound, or with silence alone."""
    assert await _heard(transcriber, []) == []
    assert await _heard(transcriber, sounds(silence(3))) == []
    assert recogniser.tasks == []


# ---- when a turn ends by its words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "eagerness", "expected"),
    [
        ("what time is it", "medium", 600),
        ("what time is it", "high", 400),
        ("i want to go and", "medium", 4000),
        ("i want to go and", "high", 2000),
        ("five six", "low", 3000),
    ],
)
async def test_a_turn_ends_as_soon_as_its_words_seem_complete(
    transcriber: Transcriber, text: str, eagerness: str, expected: int
) -> None:
    """And the later the less they do."""
    sound = np.concatenate([say(text), silence(5)])
    told = await _heard(transcriber, sounds(sound, _eager(eagerness)))
    stopped = next(output for output in told if isinstance(output, SpeechStopped))
    trailed = len(say(text)) + (16 - 60 - TRAIL_MS + expected) * MS
    assert stopped.at == pytest.approx(trailed, abs=33 * MS)
    assert _texts(told) == [text]


async def test_who_goes_on_in_time_is_not_cut_off(transcriber: Transcriber) -> None:
    """A pause after an unfinished sentence belongs to the turn."""
    sound = np.concatenate([say("i want to"), silence(1.5), say("go home please"), silence(5)])
    assert _texts(await _heard(transcriber, sounds(sound, _eager("medium")))) == ["i want to go home please"]


async def test_when_a_turn_ends_does_not_depend_on_how_fast_words_are_recognised(
    transcriber: Transcriber, recogniser: ToneRecogniser
) -> None:
    """With a recogniser that answers late, the turn ends at the same sample, and nothing of the next one is lost."""
    sound = np.concatenate([say("what time is it"), silence(1.2), say("i want to go home"), silence(2)])
    quick = await _heard(transcriber, sounds(sound, _eager("high")))
    recogniser.going.clear()
    asyncio.get_running_loop().call_later(0.2, recogniser.going.set)
    slow = await _heard(transcriber, sounds(sound, _eager("high")))
    assert _texts(quick) == ["what time is it", "i want to go home"]
    assert [one for one in slow if not isinstance(one, Transcript)] == [
        one for one in quick if not isinstance(one, Transcript)
    ]


# ---- turns that are ended by hand ------------------------------------------------------------------------------


async def test_push_to_talk(transcriber: Transcriber) -> None:
    """Nothing is told before the commit; then all that came since the last one, pauses and all."""
    first = sounds(np.concatenate([say("one two"), silence(2), say("three")]), PUSH)
    second = sounds(say("four five"), PUSH, at=first[-1].at + len(first[-1].data) // 2)
    told = await _heard(
        transcriber, [*first, _then(first, "commit", PUSH, "a"), *second, _then(second, "commit", PUSH, "b")]
    )
    assert [(final.item, final.text) for final in _finals(told)] == [("a", "one two three"), ("b", "four five")]
    assert {type(output) for output in told} == {Transcript, Transcribed}
    assert _finals(told)[1].words[0].start > _finals(told)[0].words[-1].end


async def test_a_commit_without_speech_has_no_text(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """Silence is told as such, and is not recognised."""
    quiet = sounds(silence(1), PUSH)
    told = await _heard(transcriber, [*quiet, _then(quiet, "commit", PUSH, "a")])
    assert [(one.item, one.text, one.problem) for one in told] == [("a", "", None)]
    assert _finals(told)[0].samples == pytest.approx(RATE, abs=768)
    assert recogniser.tasks == []


async def test_a_commit_in_the_middle_of_a_turn(transcriber: Transcriber) -> None:
    """The turn becomes the committed item, once; what is said after it is another turn."""
    first = sounds(np.concatenate([silence(0.5), say("one two")]))
    rest = sounds(np.concatenate([say("three"), silence(1)]), at=first[-1].at + len(first[-1].data) // 2)
    told = await _heard(transcriber, [*first, _then(first, "commit", SERVER, "mine"), *rest])
    assert _texts(told) == ["one two", "three"]
    assert _finals(told)[0].item == "mine"
    items = [output.item for output in told if isinstance(output, (SpeechStopped, SpeechStarted))]
    assert items[1] == items[2] == _finals(told)[1].item != items[0]


async def test_what_is_cleared_is_forgotten(transcriber: Transcriber) -> None:
    """A turn in progress is never told to its end, nor what waited for a commit."""
    for how in (SERVER, PUSH):
        first = sounds(say("one two three"), how)
        rest = sounds(np.concatenate([silence(1), say("four"), silence(1)]), how, at=_then(first, "", how).at)
        told = await _heard(
            transcriber, [*first, _then(first, "clear", how), *rest, _then(rest, "commit", how, "last")]
        )
        assert [text for text in _texts(told) if text] == ["four"]


@pytest.mark.parametrize("then", ["clear", "commit"])
async def test_a_turn_that_was_cut_off_leaves_no_other(transcriber: Transcriber, then: str) -> None:
    """The last frames of a sound that a client has ended in its middle begin nothing by what was heard before."""
    first = sounds(np.concatenate([silence(0.5), say("one")[: 150 * MS]]))
    rest = sounds(np.concatenate([say("one")[: 75 * MS], silence(2)]), at=_then(first, "", SERVER).at)
    told = await _heard(transcriber, [*first, _then(first, then, SERVER, "mine"), *rest, _then(rest, "end", SERVER)])
    assert sum(isinstance(one, SpeechStarted) for one in told) == 1
    assert [final.item for final in _finals(told)] == (["mine"] if then == "commit" else [])


@pytest.mark.parametrize("offset", [0, 1, 2, 767])
async def test_another_encoding_goes_on_within_a_sample(transcriber: Transcriber, offset: int) -> None:
    """Sound at 8 kHz that begins between two of its samples is one stream, not a gap with every piece."""
    at = 20_160 + offset
    pcm = np.concatenate([silence(0.5), say("four five six"), silence(1)])
    coded = g711.encode(pcm[::3], "pcmu")
    how = Listening("pcmu", Detection())
    pieces = [
        Sound("s", "audio_1", at + 3 * start, coded[start : start + 320], how) for start in range(0, len(coded), 320)
    ]
    told = await _heard(transcriber, [*sounds(silence(at / RATE)), *pieces])
    assert _texts(told) == ["four five six"]


# ---- long speech -----------------------------------------------------------------------------------------------


async def test_long_speech_without_a_pause_is_cut_between_words(
    transcriber: Transcriber, recogniser: ToneRecogniser
) -> None:
    """Pieces are never longer than the recogniser's window, no word is lost or told twice, and times go on."""
    text = " ".join(["one two three four five six seven eight nine"] * 12)
    told = await _heard(transcriber, sounds(np.concatenate([say(text), silence(1)])))
    assert _texts(told) == [text]
    assert max(task.samples for task in recogniser.tasks) <= recogniser.window_s * 16_000
    starts = [word.start for word in _finals(told)[0].words]
    assert starts == pytest.approx([260 * MS * n for n in range(len(starts))], abs=40 * MS)


async def test_a_tone_without_end_is_bounded(
    transcriber: Transcriber, recogniser: ToneRecogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes of noise that the VAD takes for speech end in turns, and what was told is settled."""
    monkeypatch.setattr(listener, "MOST_TURN", 60 * RATE)
    settled, begun = [], []
    async for output in SpeechStage(PowerVad(), transcriber)(
        stream(sounds(np.tile(tone(4.0, 600), 32), Listening(detection=Detection(), partials=False), size=32_000))
    ):
        if isinstance(output, Settled):
            settled.append(output.messages)
        elif isinstance(output, SpeechStarted):
            begun.append(output.at)
    assert np.diff(begun) == pytest.approx([60 * RATE] * 2, abs=RATE)
    assert settled[-1] * 32_000 > 110 * RATE
    assert len(recogniser.tasks) < 25


# ---- trouble ---------------------------------------------------------------------------------------------------


async def test_a_refusal_is_told_and_not_hidden(recogniser: ToneRecogniser) -> None:
    """Where too much waits, the turn has a problem with a time to come back, and the next one goes on."""
    async with Transcriber(recogniser, queue=1) as transcriber:
        recogniser.going.clear()
        stages = [SpeechStage(PowerVad(), transcriber) for _ in range(3)]
        sound = np.concatenate([say("one two"), silence(1)])
        how = Listening(detection=Detection(), partials=False)

        async def told(number: int) -> Transcribed:
            messages = sounds(sound, how, turn=f"audio_{number}")
            return _finals([one async for one in stages[number](stream(messages))])[0]

        tasks = [asyncio.create_task(told(0))]
        while transcriber.busy_since is None:  # noqa: ASYNC110 - a few times
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(told(number)) for number in (1, 2)]
        await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        recogniser.going.set()
        finals = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    problems = [final.problem for final in finals if final.problem]
    assert sorted(final.text for final in finals) == ["", "one two", "one two"]
    assert [problem.code for problem in problems] == ["overloaded"]
    assert problems[0].retry_after is not None


async def test_a_recogniser_that_fails_is_told(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """The turn has a problem, and no text of which a part is missing."""
    recogniser.fails = RuntimeError("broken")
    final = _finals(await _heard(transcriber, sounds(np.concatenate([say("one two"), silence(1)]))))[0]
    assert final.problem is not None
    assert (final.text, final.words, final.problem.code) == ("", (), "transcription_failed")


async def test_a_stream_that_floods_waits_for_its_words(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """Of a recording that comes at once, no more than a few pieces wait at a time; all are told."""
    recogniser.going.clear()
    sound = np.concatenate([part for _ in range(12) for part in (say("one two"), silence(0.8))])
    how = Listening(detection=Detection(), partials=False)
    stage = SpeechStage(PowerVad(), transcriber)

    async def run() -> list[Any]:
        return [output async for output in stage(stream(sounds(sound, how, size=32_000)))]

    task = asyncio.create_task(run())
    await asyncio.sleep(0.2)
    assert transcriber._queue.count("final") <= 5
    recogniser.going.set()
    assert _texts(await asyncio.wait_for(task, 10)) == ["one two"] * 12


async def test_who_stops_listening_leaves_nothing_behind(transcriber: Transcriber, recogniser: ToneRecogniser) -> None:
    """What was asked for is called off, and nothing goes on reading."""
    recogniser.going.clear()
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Sound]:
        try:
            for sound in sounds(say("one two three four five six seven")):
                yield sound
            await asyncio.sleep(60)
        finally:
            closed.set()

    stage = SpeechStage(PowerVad(), transcriber)(endless())  # type: ignore[arg-type]
    assert isinstance(await anext(stage), SpeechStarted)
    waiting = asyncio.ensure_future(anext(stage))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await stage.aclose()
    await asyncio.wait_for(closed.wait(), 1)
    assert [transcriber._queue.count(urgency) for urgency in get_args(Urgency)] == [0, 0, 0]


# ---- how the sound comes ---------------------------------------------------------------------------------------


async def test_the_pieces_do_not_matter(transcriber: Transcriber) -> None:
    """The same turns and words, be the pieces of 1 ms, of an odd number of bytes, or a minute long."""
    sound = np.concatenate([silence(0.7), say("i want to go home"), silence(1.1), say("what time is it"), silence(1)])
    expected = None
    for size in (24, 480, 7_777, 32_000, len(sound)):
        told = await _heard(transcriber, sounds(sound, size=size))
        told = sorted((one for one in told if not isinstance(one, Transcript)), key=repr)
        assert told == (expected := expected or told)
    data = sound.tobytes()
    places = range(0, len(data), 4_801)
    odd = [Sound("s", "audio_1", begin // 2, data[begin : begin + 4_801], SERVER) for begin in places]
    assert _texts(await _heard(transcriber, odd)) == ["i want to go home", "what time is it"]


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
async def test_telephone_sound(transcriber: Transcriber, encoding: Any) -> None:
    """G.711 at 8 kHz: the same words at the same positions of 24 kHz."""
    sound = np.concatenate([silence(0.5), say("one two three"), silence(1)])
    data = g711.encode(sound[::3], encoding)
    how = Listening(encoding=encoding, detection=Detection())
    messages = [Sound("s", "audio_1", at * 3, data[at : at + 800], how) for at in range(0, len(data), 800)]
    final = _finals(await _heard(transcriber, messages))[0]
    assert final.text == "one two three"
    assert final.words[0].start == pytest.approx(500 * MS, abs=30 * MS)


async def test_sound_that_comes_twice_is_heard_once(transcriber: Transcriber) -> None:
    """Pieces that overlap those before them, or repeat them, add nothing."""
    messages = sounds(np.concatenate([say("one two three"), silence(1)]))
    twice = [copy for message in messages for copy in (message, message)]
    assert _texts(await _heard(transcriber, twice)) == ["one two three"]


async def test_a_gap_ends_a_turn(transcriber: Transcriber) -> None:
    """What is missing cannot be heard: the turn ends before it, and positions stay right behind it."""
    messages = [*sounds(say("one two")), *sounds(np.concatenate([say("three"), silence(1)]), at=20 * RATE)]
    told = await _heard(transcriber, messages)
    assert _texts(told) == ["one two", "three"]
    assert _finals(told)[1].words[0].start == pytest.approx(20 * RATE, abs=30 * MS)


async def test_another_encoding_in_the_middle(transcriber: Transcriber) -> None:
    """The turn ends there, and the stream goes on in the new one."""
    first = sounds(say("one two"))
    data = g711.encode(np.concatenate([say("three"), silence(1)])[::3], "pcmu")
    how = Listening(encoding="pcmu", detection=Detection())
    told = await _heard(transcriber, [*first, Sound("s", "audio_1", _then(first, "", how).at, data, how)])
    assert _texts(told) == ["one two", "three"]


# ---- settled, and heard again ----------------------------------------------------------------------------------


def _conversation() -> NDArray[np.int16]:
    texts = ["i want to go home", "what time is it", "one two three", "four five six", "and seven", "please"]
    return np.concatenate([part for text in texts for part in (silence(4.3), say(text), silence(1.7))])


def _turn_by_turn(told: Iterable[Any]) -> dict[str, list[Any]]:
    """What is told of each turn in its order; a turn may begin before the words of the one before are known."""
    turns: dict[str, list[Any]] = {}
    for output in told:
        if not isinstance(output, Settled | Transcript):
            turns.setdefault(output.item, []).append(output)
    return turns


@pytest.mark.parametrize("size", [1_000, 32_000])
async def test_a_new_owner_tells_the_same(transcriber: Transcriber, size: int) -> None:
    """Whoever begins where something was settled tells every turn that was not wholly told before, as it was told."""
    messages = sounds(_conversation(), size=size)
    told: list[Any] = [output async for output in SpeechStage(PowerVad(), transcriber)(stream(messages))]
    whole = _turn_by_turn(told)
    marks = [n for n, output in enumerate(told) if isinstance(output, Settled)]
    assert len(marks) >= 6
    assert told[marks[-1]].messages * size > len(_conversation()) - 12 * RATE
    for mark in marks:
        later = _turn_by_turn(await _heard(transcriber, messages[told[mark].messages :]))
        assert later == {item: whole.get(item) for item in later}
        assert later.keys() >= _turn_by_turn(told[mark + 1 :]).keys()


async def test_nothing_of_a_turn_in_progress_is_settled(transcriber: Transcriber) -> None:
    """Nor of one whose words are not told yet."""
    messages = sounds(np.concatenate([silence(10), say(" ".join(["one two three"] * 10))]))
    begins = None
    async for output in SpeechStage(PowerVad(), transcriber)(stream(messages)):
        if isinstance(output, SpeechStarted):
            begins = output.at
        if isinstance(output, Settled) and begins is not None and not output.messages * 2_400 < begins:
            pytest.fail("a turn that is not told was settled")
    assert begins is not None


async def test_hours_of_silence_are_settled_as_they_come(transcriber: Transcriber) -> None:
    """A stream in which nobody speaks holds a few seconds."""
    quiet, settled, given = silence(1), 0, 0

    async def day() -> AsyncIterator[Sound]:
        nonlocal given
        for second in range(120):
            given += 1
            yield Sound("s", "audio_1", second * RATE, quiet.tobytes(), SERVER)

    async for output in SpeechStage(PowerVad(), transcriber)(day()):  # type: ignore[arg-type]
        assert isinstance(output, Settled)
        assert output.messages > settled
        assert given - output.messages <= 6
        settled = output.messages
    assert settled >= 114


def test_the_stage_for_the_loop(transcriber: Transcriber) -> None:
    """It is open-ended, and a stream ends with the sound that says so."""
    stage = speech_stage(SpeechStage(PowerVad(), transcriber))
    assert (stage.name, stage.reads.name) == ("speech", "audio")
    assert stage.idle_s
    assert stage.last(Sound("s", "a", 0, then="end"))
    assert not stage.last(Sound("s", "a", 0, then="commit"))
    assert Transcription().words == ()
