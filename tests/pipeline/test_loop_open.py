"""Streams without a deadline: they end when nothing comes, are given up on a drain, and are bounded in every way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from pipeline import request
from pipeline.bus import Part
from pipeline.headers import DEADLINE
from pipeline.loop import LoopSettings
from pipeline.memory import MemoryBus
from pipeline.messages import Cancel
from pipeline.stage import Settled, Stage, Stream
from pipeline.topics import AUDIO, DEAD_LETTERS, REPLIES
from pipeline.voice import Sound
from tests.pipeline.fakes import eventually, make_loop, put, running, tapping
from tests.pipeline.streams import Hearing, end, heard, listening, say, texts

AUDIO_0 = Part("audio", 0)


@pytest.fixture
async def bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus with one partition a topic."""
    async with MemoryBus(partitions=1) as bus:
        yield bus


def committed(bus: MemoryBus) -> int:
    """How far the group has come in the audio."""
    return bus._groups["speech"].committed[AUDIO_0]


async def test_a_silent_stream_ends_and_all_of_it_is_finished(bus: MemoryBus) -> None:
    """When nothing comes for a while the stage sees the end of its messages, says its last, and nothing is held."""
    hearing = Hearing()
    loop = make_loop(hearing.stage(idle_s=0.3), bus)
    async with tapping(bus, REPLIES) as replies, running(loop):
        await say(bus, "one.tw")
        assert texts(await replies.take(2)) == ["one.", "tw"]
        await eventually(lambda: committed(bus) == 6)
        (holding,) = loop._holdings.values()

        assert hearing.ended == 1
        assert (holding.jobs, holding.lanes, holding.window.span, holding.backlog.count) == ({}, {}, 0, 0)
        assert await replies.silent()


async def test_a_stream_is_not_silent_while_something_comes(bus: MemoryBus) -> None:
    """It is the silence that counts, not the age; nor does a turn's usual time end it."""
    hearing = Hearing()
    loop = make_loop(hearing.stage(idle_s=0.4), bus, settings=LoopSettings(commit_every=0.02, patience=0.1))
    async with tapping(bus, REPLIES) as replies, running(loop):
        for at in range(8):
            await put(bus, Sound("s", "audio", at=at, data=b"a"), **{DEADLINE: str(time.time() - 1)})
            await asyncio.sleep(0.1)
        await say(bus, ".", at=8)
        assert texts(await replies.take(1)) == ["aaaaaaaa."]

    assert len(hearing.calls) == 1


async def test_a_stage_that_is_slow_to_read_is_not_cut_off(bus: MemoryBus) -> None:
    """Messages that wait to be read are no silence, however long the stage takes over the one before."""
    gate, read = asyncio.Event(), []

    async def fold(sounds: Stream) -> Stream:
        turn: list[Sound] = []
        async for sound in sounds:
            turn.append(sound)
            read.append(sound.at)
            await gate.wait()
        yield heard(turn)

    async with tapping(bus, REPLIES) as replies, running(make_loop(listening(fold, idle_s=0.1), bus)):
        await say(bus, "ab")
        await asyncio.sleep(0.4)
        assert read == [0]
        await say(bus, "c", at=2)
        await asyncio.sleep(0.05)
        gate.set()
        assert texts(await replies.take(1)) == ["abc"]

    assert read == [0, 1, 2]


async def test_an_open_stream_has_no_deadline(bus: MemoryBus) -> None:
    """Whatever the request says: it goes on for as long as something comes, and a stage can see that."""
    seen: list[float] = []

    async def fold(sounds: Stream) -> Stream:
        seen.append(request.current().deadline)
        async for sound in sounds:
            yield heard([sound])

    async with tapping(bus, REPLIES) as replies, running(make_loop(listening(fold), bus)):
        await put(bus, Sound("s", "audio", at=0, data=b"a"), **{DEADLINE: str(time.time() + 5)})
        await replies.take(1)

    assert seen == [float("inf")]


async def test_what_comes_after_a_silence_begins_a_new_call(bus: MemoryBus) -> None:
    """Also for what comes while the stage is still about the end of the former one, which takes no place from it."""
    gate, hearing = asyncio.Event(), Hearing()

    async def slow_to_end(sounds: Stream) -> Stream:
        async for out in hearing(sounds):
            yield out
        if hearing.ended == 1:
            await gate.wait()

    stage = listening(slow_to_end, idle_s=0.2, concurrency=1)
    async with tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
        at = await say(bus, "a.")
        await eventually(lambda: hearing.ended == 1)
        at = await say(bus, "b.", at=at)
        await asyncio.sleep(0.05)
        assert len(hearing.calls) == 1
        gate.set()
        assert texts(await replies.take(2)) == ["a.", "b."]
        await eventually(lambda: hearing.ended == 2)
        await say(bus, "c.", at=at)
        assert texts(await replies.take(1)) == ["c."]

    assert hearing.calls == [[0, 1], [2, 3], [4, 5]]


async def test_a_stream_that_was_ended_does_not_begin_again(bus: MemoryBus) -> None:
    """What comes behind its last message is dropped, as for any turn."""
    hearing = Hearing()
    loop = make_loop(hearing.stage(), bus)
    async with tapping(bus, REPLIES) as replies, running(loop):
        at = await say(bus, "a.b")
        await end(bus, at)
        assert texts(await replies.take(2)) == ["a.", "b"]
        await eventually(lambda: committed(bus) == 4)
        await say(bus, "c.", at=at)
        await eventually(lambda: committed(bus) == 6)
        assert await replies.silent()

    assert len(hearing.calls) == 1
    assert loop.metrics.repeated._value.get() == 2


async def test_a_cancelled_stream_ends_and_stays_ended(bus: MemoryBus) -> None:
    """A cancel stops it as any turn, with one last word; what still comes of it is dropped."""
    hearing = Hearing()
    async with tapping(bus, REPLIES) as replies, running(make_loop(hearing.stage(), bus)):
        at = await say(bus, "a.b")
        await replies.take(1)
        await put(bus, Cancel("s", "audio"))
        (last,) = await replies.take(1)
        await say(bus, "c.", at=at)
        await eventually(lambda: committed(bus) == 5)
        assert await replies.silent()

    assert (last.turn, last.status) == ("audio", "cancelled")
    assert hearing.ended == 0


async def test_a_drain_leaves_a_stream_where_it_is(bus: MemoryBus) -> None:
    """A worker that stops does not wait for its end; what is settled is committed, and the next one goes on there."""
    hearing = Hearing()
    loop = make_loop(hearing.stage(), bus, settings=LoopSettings(commit_every=60.0, drain=20.0))
    async with tapping(bus, REPLIES) as replies:
        task = asyncio.create_task(loop.run())
        at = await say(bus, "one.tw")
        await replies.take(1)
        await eventually(lambda: hearing.calls and len(hearing.calls[0]) == 6)
        began = time.monotonic()
        loop.drain()
        await asyncio.wait_for(task, 10)
        assert time.monotonic() - began < 5
        assert (committed(bus), hearing.ended) == (4, 0)
        async with running(make_loop(hearing.stage(), bus)):
            await say(bus, "o.", at=at)
            assert texts(await replies.take(1)) == ["two."]

    assert hearing.calls[1] == [4, 5, 6, 7]


async def test_many_streams_are_open_at_once_and_one_too_many_is_refused(bus: MemoryBus) -> None:
    """Idle ones hold nobody up; beyond the bound the new one is told so, once, and the others go on."""
    hearing = Hearing()
    async with tapping(bus, REPLIES) as replies, running(make_loop(hearing.stage(concurrency=300, span=20), bus)):
        for n in range(300):
            await say(bus, "a", stream=f"audio_{n}", session=f"s{n}")
        await eventually(lambda: len(hearing.calls) == 300)
        await say(bus, "x.y.", stream="audio_x", session="x")
        (refused,) = await replies.take(1)
        await say(bus, ".", at=1, stream="audio_7", session="s7")
        (told,) = await replies.take(1)
        assert await replies.silent()

    assert (refused.turn, refused.status, refused.problem.code) == ("audio_x", "failed", "overloaded")
    assert refused.problem.retry_after == 5.0
    assert "300 streams are open in stage 'speech'" in refused.problem.message
    assert (told.turn, told.text) == ("audio_7", "a.")


async def test_a_silent_stream_makes_room_for_another(bus: MemoryBus) -> None:
    """Its place is free as soon as it has ended."""
    hearing = Hearing()
    stage = hearing.stage(concurrency=1, idle_s=0.2)
    async with tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
        await say(bus, "a.", stream="audio_1")
        await eventually(lambda: hearing.ended == 1 and committed(bus) == 2)
        await say(bus, "b.", stream="audio_2")
        assert texts(await replies.take(2)) == ["a.", "b."]


async def test_a_stream_of_which_nothing_is_settled_fails_at_the_bound(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is bounded also where a stage never settles: it is set aside with the stage and the cure named."""

    async def fold(sounds: Stream) -> Stream:
        async for _ in sounds:
            pass
        yield Settled(0)

    async with (
        tapping(bus, REPLIES) as replies,
        tapping(bus, DEAD_LETTERS) as letters,
        running(make_loop(listening(fold, unsettled=2000), bus)),
    ):
        for at in range(3):
            await put(bus, Sound("s", "audio", at=at, data=b"x" * 900))
        (last,), (letter,) = await replies.take(1), await letters.take(1)

    assert (last.turn, last.status) == ("audio", "failed")
    assert "NothingSettled: stage 'speech' has read 2" in letter.error
    assert "Stage.unsettled" in letter.error
    assert "for good" in caplog.text


async def test_what_waits_to_be_read_pauses_its_partition_and_fails_nothing(bus: MemoryBus) -> None:
    """The bound on what is unsettled counts what was read; what was not is bounded by the span."""
    gate = asyncio.Event()

    async def fold(sounds: Stream) -> Stream:
        read = 0
        async for sound in sounds:
            await gate.wait()
            read += 1
            yield heard([sound])
            yield Settled(read)

    loop = make_loop(listening(fold, unsettled=2000, span=10), bus)
    async with tapping(bus, REPLIES) as replies, running(loop):
        for at in range(40):
            await put(bus, Sound("s", "audio", at=at, data=b"x" * 900))
        await eventually(lambda: loop.metrics.pauses._value.get() == 1)
        await asyncio.sleep(0.2)
        (holding,) = loop._holdings.values()
        assert holding.backlog.count <= 10
        assert (loop.in_hand, loop.listening) == (1, 0)
        gate.set()
        assert len(await replies.take(40)) == 40
        await eventually(lambda: committed(bus) == 40)
        assert (loop.in_hand, loop.listening) == (1, 1)


def test_only_a_folding_stage_is_open_ended() -> None:
    """A stage with one message a turn has nothing to wait for, and a silence of no time would end every stream."""

    async def each(sound: Sound) -> Stream:
        yield heard([sound])

    async def fold(sounds: Stream) -> Stream:
        async for sound in sounds:
            yield heard([sound])

    with pytest.raises(ValueError, match="folding stages only"):
        Stage("speech", AUDIO, each=each, idle_s=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        Stage("speech", AUDIO, folding=fold, idle_s=0.0)
