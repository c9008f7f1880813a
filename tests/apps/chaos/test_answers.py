"""Spoken answers: every way in which one can be lost, come twice or sound otherwise is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.chaos.answers import Answers, judged_answers, silences
from apps.chaos.audit import Audit, Said, Sound
from apps.chaos.plan import Kind
from apps.chaos.record import Answer, Call, Record, Sounded, fingerprint
from apps.chaos.reference import compare, differing
from pipeline.voice import RATE, Sentence
from tests.apps.chaos.runs import log_of, struck, turn

NAME = ("sess_1", "resp_1")
TEXT = "We have a tent, and it is dry. "
SAID = ("We have a tent, ", "and it is dry. ")


def answer(sound: bytes = b"abcd", *, pieces: int = 2) -> Answer:
    """An answer that went well, with a piece of sound each second."""
    got = Answer(["completed"], words=list(SAID), said=TEXT, samples=len(sound) // 2, closed=1)
    step = len(sound) // 2 // pieces
    for number in range(1, pieces + 1):
        got.pieces.append(Sounded(float(number), number * step, fingerprint(sound[: 2 * number * step]).digest()))
    return got


def sentences() -> dict[int, Sentence]:
    """What was to be spoken."""
    return {
        0: Sentence(*NAME, 0, 0, SAID[0]),
        1: Sentence(*NAME, 1, len(SAID[0]), SAID[1], last=True),
    }


def judged(got: Answer, said: Said, sound: Sound | None) -> tuple[Answers, list[tuple[str, str]]]:
    """What is found of it, and what was not as it must be."""
    log, found = Audit(), Answers()
    log.said[NAME] = said
    if sound is not None:
        log.sounds[NAME] = sound
    return found, list(judged_answers(found, Call(0, 0, 0.0, "sess_1", answers={"resp_1": got}), log))


def test_an_answer_as_where_nothing_breaks_is_well() -> None:
    """Also if a new owner has said some of it again: the client has heard it once."""
    found, flaws = judged(answer(), Said(sentences(), samples=2, copies=RATE), Sound(2, ""))

    assert not flaws
    assert (found.answers, found.sounded, found.exact, found.again) == (1, 1, 1, 1.0)


@pytest.mark.parametrize(
    ("change", "guarantee", "how"),
    [
        (lambda got, said: got.ends.append("completed"), "one terminal event", "2 of them"),
        (lambda got, said: got.ends.clear(), "one terminal event", "0 of them"),
        (lambda got, said: got.ends.__setitem__(0, "failed"), "an answer", "ended as failed"),
        (lambda got, said: got.words.pop(), "the transcript as it came", "is not"),
        (lambda got, said: setattr(got, "closed", 2), "one end of the sound", "2 of them"),
        (lambda got, said: got.pieces.clear(), "each sample once", "nothing of it was heard"),
        (lambda got, said: said.changed.append(1), "the same sentences", "sentence 1 was cut"),
        (lambda got, said: said.sentences.pop(0), "every sentence is there", "only [1]"),
        (lambda got, said: setattr(said, "holes", 1), "no sample is missing", "1 times"),
        (lambda got, said: setattr(got, "said", TEXT.lower()), "what is said is what is written", "we have"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_must_be_is_named(change: Callable[[Answer, Said], object], guarantee: str, how: str) -> None:
    """With the answer."""
    got, said = answer(), Said(sentences())
    change(got, said)
    _, flaws = judged(got, said, Sound(2, ""))

    assert any(what.startswith(guarantee) and text.startswith("resp_1: ") and how in text for what, text in flaws)


def test_another_sound_is_named() -> None:
    """And does not count as the right one."""
    found, flaws = judged(answer(), Said(sentences()), Sound(2, "they differ"))

    assert flaws == [("each sample once", "resp_1: they differ")]
    assert (found.sounded, found.exact) == (1, 0)


def test_what_was_put_off_is_counted_and_no_flaw() -> None:
    """The log was away, and the client was asked to come back."""
    got = Answer(["failed"], "log_unavailable", words=["We "])
    found, flaws = judged(got, Said(), None)

    assert (flaws, found.put_off) == ([], 1)


@pytest.mark.parametrize(
    ("right", "how"),
    [
        (b"abcd", ""),
        (b"abcdef", "0.000 s were heard instead of 0.000 s"),
        (b"abxd", "between 0.000 s and 0.000 s it is another sound"),
        (b"ab", "it is another sound"),
    ],
)
def test_sound_is_compared_sample_by_sample(right: bytes, how: str) -> None:
    """What is missing, too much, or another is told with its place."""
    found = differing(answer(b"abcd"), right)

    assert found.samples == len(right) // 2
    assert how in found.apart
    assert bool(how) is bool(found.apart)


async def test_the_right_sound_is_that_of_the_sentences_in_the_log() -> None:
    """Spoken again it is the same, sample by sample; half of it is not."""
    log, heard = Audit(), answer(b"")
    log.said[NAME].sentences.update(sentences())
    call = Call(0, 0, 0.0, "sess_1", answers={"resp_1": heard})
    await compare([call], log)
    samples = log.sounds[NAME].samples
    assert samples > RATE
    assert log.sounds[NAME].apart

    from apps.chaos import reference
    from stages.postprocess.speak.espeak_engine import EspeakSynthesizer
    from stages.postprocess.speak.stage import SpeakStage

    async with EspeakSynthesizer() as synthesizer:
        right = await reference._sound_of(SpeakStage(synthesizer), Said({0: Sentence(*NAME, 0, 0, "", last=True)}))
        assert right == b""
        right = await reference._sound_of(SpeakStage(synthesizer, lead_s=60.0), log.said[NAME])
    call.answers["resp_1"] = answer(right)
    await compare([call], log)
    assert log.sounds[NAME] == Sound(samples, "")


def test_silence_is_counted_for_the_fault_that_struck() -> None:
    """Of an answer that was being heard: what came later than all before had been heard."""
    got = answer(bytes(2 * 3 * RATE), pieces=3)
    got.pieces[2] = got.pieces[2]._replace(at=5.5)  # the first two last until three
    call = Call(0, 0, 0.0, "sess_1", answers={"resp_1": got}, via=[(0.0, 1)])
    log = log_of(turn("1"), part=3)
    mine, others = struck(2.5, parts=frozenset({3})), struck(2.5, parts=frozenset({4}))
    late = struck(9.0, parts=frozenset({3}))
    gateway = struck(2.5, Kind.GATEWAY, "")
    gateway.gateway = 0
    found = silences(Record(calls=[call], faults=[mine, others, late, gateway]), log)

    assert got.silences() == [(5.5, 2.5)]
    assert {name: (row.n, row.p50) for name, row in found.items()} == {"kill llm": (1, 2.5)}
    gateway.gateway = 1
    assert "gateway" in silences(Record(calls=[call], faults=[gateway]), log)
