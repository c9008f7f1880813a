"""The speak stage in the loop, in memory and on Kafka: answers of many, a cancel, a worker's death; real espeak-ng."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from pipeline.bus import Bus
from pipeline.kafka import KafkaBus
from pipeline.memory import MemoryBus
from pipeline.messages import Cancel
from pipeline.stage import Stage
from pipeline.topics import REPLIES
from pipeline.voice import RATE, Sentence, Spoken
from stages.postprocess.speak.encode import PIECE
from stages.postprocess.speak.espeak_engine import EspeakSynthesizer
from stages.postprocess.speak.stage import SpeakStage, speak_stage
from tests.pipeline.fakes import Tap, make_loop, put, running, tapping
from tests.pipeline.test_loop_contract import doomed, kafka_route, kill
from tests.services import KafkaService
from tests.stages.postprocess.speak.fakes import FAILURE, FakeSynthesizer, sentences


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
async def bus(request: pytest.FixtureRequest) -> AsyncGenerator[Bus, None]:
    """A bus of either kind with the whole route."""
    if request.param == "memory":
        async with MemoryBus() as memory:
            yield memory
    else:
        kafka: KafkaService = request.getfixturevalue("kafka")
        async with kafka_route(kafka) as real:
            assert isinstance(real, KafkaBus)
            yield real


def stage(synthesizer: FakeSynthesizer | None = None, lead_s: float = 1.0) -> Stage:
    """The stage on a fake voice."""
    return speak_stage(SpeakStage(synthesizer or FakeSynthesizer(), lead_s=lead_s))


async def say(bus: Bus, *texts: str, session: str = "s", turn: str = "t", last: bool = True) -> None:
    """Publish an answer of these sentences, said now."""
    for one in sentences(*texts, since=time.time(), last=last):
        await put(bus, Sentence(session, turn, one.index, one.at, one.text, one.voice, one.since, one.last))


async def heard(tap: Tap, turn: str = "t") -> list[Spoken]:
    """What is said of `turn` up to its last word; other turns are passed over."""
    messages: list[Spoken] = []
    while not (messages and messages[-1].last):
        (message,) = await tap.take(1)
        if message.turn == turn:
            messages.append(message)
    return messages


async def test_answers_of_many_are_spoken_at_once(bus: Bus) -> None:
    """Each session hears its own answer, whole and in order, and nobody waits until another has been heard."""
    begun = time.monotonic()
    async with tapping(bus, REPLIES) as tap, running(make_loop(stage(lead_s=0.2), bus)):
        for n in range(10):
            await say(bus, "One two. ", f"Number {n}", session=f"s{n}", turn=f"t{n}")
        sizes: dict[str, int] = {}
        ended = 0
        while ended < 10:
            (message,) = await tap.take(1)
            assert message.at * 2 == sizes.get(message.turn, 0)
            sizes[message.turn] = sizes.get(message.turn, 0) + len(message.data)
            ended += message.last
    assert set(sizes.values()) == {round((0.8 + 0.28 + 0.8) * RATE) * 2}
    assert time.monotonic() - begun < 8


async def test_cancel_is_the_last_word(bus: Bus) -> None:
    """An answer that is cancelled ends at once where it is, once, and later sentences of it are not spoken."""
    async with tapping(bus, REPLIES) as tap, running(make_loop(stage(lead_s=0.2), bus)):
        await say(bus, "This would take four seconds to be heard. ", last=False)
        await tap.take(3)
        await put(bus, Cancel("s", "t"))
        begun = time.monotonic()
        *_, last = await heard(tap)
        assert time.monotonic() - begun < 2
        await put(bus, Sentence("s", "t", 1, 42, "More. ", since=time.time(), last=True))
        assert await tap.silent(0.3)

    assert last.problem is None
    assert last.at < 3 * RATE
    assert not last.data


async def test_cancel_before_the_first_sentence(bus: Bus) -> None:
    """An answer that was cancelled before it came is one last word."""
    async with tapping(bus, REPLIES) as tap, running(make_loop(stage(), bus)):
        await put(bus, Cancel("s", "t"))
        await asyncio.sleep(0.3)
        await say(bus, "One. ")
        assert await heard(tap) == [Spoken("s", "t", 0, last=True)]


async def test_failure_says_nothing_of_the_turn(bus: Bus) -> None:
    """Where the voice fails the sound ends with a problem; there is no word that would end the text, and no letter."""
    async with tapping(bus, REPLIES) as tap, running(make_loop(stage(FakeSynthesizer(fails=FAILURE)), bus)):
        await say(bus, "One! ", "Two. ")
        (last,) = await heard(tap)
        await say(bus, "Two. ", turn="t2")
        assert (await heard(tap, "t2"))[0].data
        assert await tap.silent(0.2)

    assert last.problem is not None
    assert last.problem.message == str(FAILURE)


@pytest.mark.slow
async def test_worker_that_dies_is_followed_by_one_that_says_the_same(bus: Bus) -> None:
    """A new owner says it again from the beginning, to the sample, what has been due at once, and the rest in time."""
    texts = ("One two three. ", "And four five six seven eight nine ten. ", "End")
    async with tapping(bus, REPLIES) as tap:
        former = make_loop(stage(lead_s=0.3), bus)
        async with doomed(former) as task:
            begun = time.time()
            await say(bus, *texts)
            first = await tap.take(14)
            await kill(former, task)
        killed = time.time() - begun
        async with running(make_loop(stage(lead_s=0.3), bus)):
            anew: list[Spoken] = []
            while not (anew and anew[-1].last):
                (message,) = await tap.take(1)
                anew = [message] if message.at == 0 else [*anew, message]
        took = time.time() - begun

    assert anew[: len(first)] == first
    assert sum(len(message.data) for message in anew) == anew[-1].at * 2
    length = anew[-1].at / RATE
    assert killed < 3
    assert length - 0.5 < took < max(length + 1, killed + 12)


async def test_the_sound_of_a_long_answer_is_not_held(bus: Bus) -> None:
    """What stands in the log is let go while the answer is still spoken, and a cancel still says where it ended."""
    async with tapping(bus, REPLIES) as tap, running(loop := make_loop(stage(lead_s=0.5), bus)):
        await say(bus, "This takes a little more than four seconds", last=False)
        pieces = await tap.take(40)
        (holding,) = [one for one in loop._holdings.values() if one.jobs]
        (job,) = holding.jobs.values()
        assert len(job.outputs) <= 2 * RATE / PIECE
        await put(bus, Cancel("s", "t"))
        while not pieces[-1].last:
            pieces += await tap.take(1)
    assert pieces[-1].at == sum(len(piece.data) for piece in pieces) // 2


async def test_real_voice_is_heard_soon(bus: Bus) -> None:
    """With espeak-ng the first sound of a clause is there in a small part of a second."""
    async with (
        EspeakSynthesizer() as synthesizer,
        tapping(bus, REPLIES) as tap,
        running(make_loop(speak_stage(SpeakStage(synthesizer)), bus)),
    ):
        begun = time.monotonic()
        await say(bus, "Sure, I can help you. ", "Bye")
        (first,) = await tap.take(1)
        soon = time.monotonic() - begun
        await heard(tap)

    assert len(first.data) == 3_840
    assert soon < 1.0
