"""What a folding stage says is settled: committed and forgotten in mid turn, and never read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from pipeline.bus import Headers, Part
from pipeline.errors import BusUnavailable, EngineUnavailable
from pipeline.folding import FoldingJob
from pipeline.loop import Loop
from pipeline.memory import MemoryBus
from pipeline.messages import Cancel, Delta, Done, Finished, Message, Tokens
from pipeline.stage import Retry, Settled, Stage, Stream, chain
from pipeline.topics import DEAD_LETTERS, PROMPTS, REPLIES, TOKENS, TURNS
from tests.pipeline.fakes import QUICK, eventually, make_loop, make_prompt, make_turn, put, running, tapping
from tests.pipeline.streams import Hearing, end, heard, listening, say, texts

AUDIO_0 = Part("audio", 0)


@pytest.fixture
async def bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus with one partition a topic."""
    async with MemoryBus(partitions=1) as bus:
        yield bus


def committed(bus: MemoryBus, group: str = "speech") -> int:
    """How far the group has come in the audio."""
    return bus._groups[group].committed[AUDIO_0]


def jobs_of(loop: Loop) -> list[FoldingJob]:
    """The turns in hand."""
    jobs = [job for holding in loop._holdings.values() for job in holding.jobs.values()]
    assert all(isinstance(job, FoldingJob) for job in jobs)
    return jobs  # type: ignore[return-value]


async def test_the_commit_moves_on_in_a_stream_that_does_not_end(bus: MemoryBus) -> None:
    """Of a stream in hand is committed what is settled, and no more."""
    async with tapping(bus, REPLIES) as replies, running(make_loop(Hearing().stage(), bus)):
        at = await say(bus, "abc.")
        await replies.take(1)
        await eventually(lambda: committed(bus) == 4)
        at = await say(bus, "de", at=at)
        await asyncio.sleep(0.1)
        assert committed(bus) == 4
        await say(bus, ".", at=at)
        await eventually(lambda: committed(bus) == 7)


async def test_nothing_of_a_settled_unit_is_remembered(bus: MemoryBus) -> None:
    """Messages, offsets and outputs of a long stream are only those since the last settled one."""
    async with tapping(bus, REPLIES) as replies, running(loop := make_loop(Hearing().stage(), bus)):
        at = 0
        for _ in range(200):
            at = await say(bus, "word.", at=at)
        await say(bus, "ab", at=at)
        await replies.take(200)
        await eventually(lambda: committed(bus) == at)
        (job,) = jobs_of(loop)
        await eventually(lambda: job._given - job._gone == 2)
        (holding,) = loop._holdings.values()
        held = [job._messages, job._offsets, job._sizes]  # type: ignore[attr-defined]

        assert [len(some) for some in held] == [2, 2, 2]
        assert (job.outputs, job.recovered, list(job._marks)) == ([], [], [])
        assert (holding.window.span, len(holding.window._finished), holding.backlog.count) == (2, 0, 0)
        assert job.progress == at


async def test_a_new_owner_begins_with_the_first_message_that_is_not_settled(bus: MemoryBus) -> None:
    """A worker that is cut off in mid turn is followed by one that reads this turn, and nothing before it."""
    hearing = Hearing()
    async with tapping(bus, REPLIES) as replies:
        cut_off = asyncio.create_task(make_loop(hearing.stage(), bus).run())
        at = await say(bus, "one.tw")
        await replies.take(1)
        await eventually(lambda: committed(bus) == 4)
        cut_off.cancel()
        await asyncio.wait([cut_off])
        async with running(make_loop(hearing.stage(), bus)):
            await say(bus, "o.", at=at)
            assert texts(await replies.take(1)) == ["two."]

    assert hearing.calls == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7]]


async def test_a_retry_begins_with_the_first_message_that_is_not_settled(bus: MemoryBus) -> None:
    """Once a turn is settled, what fails later does not let it be said again."""
    failed = False
    calls: list[list[int]] = []

    async def fold(sounds: Stream) -> Stream:
        nonlocal failed
        calls.append([])
        unit: list[Any] = []
        async for sound in sounds:
            calls[-1].append(sound.at)
            unit.append(sound)
            if sound.data == b"!" and not failed:
                failed = True
                raise EngineUnavailable("hiccup")
            if sound.data == b".":
                yield heard(unit)
                yield Settled(len(calls[-1]))
                unit = []

    async with (
        tapping(bus, REPLIES) as replies,
        running(make_loop(listening(fold, retry=Retry(first=0.01)), bus)),
    ):
        await say(bus, "one.t!wo.")
        assert texts(await replies.take(2)) == ["one.", "t!wo."]

    assert calls == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8]]


async def test_what_an_attempt_had_said_is_forgotten_when_the_next_one_settles_it(bus: MemoryBus) -> None:
    """Retries in a long stream leave nothing behind."""
    failed = 0

    async def fold(sounds: Stream) -> Stream:
        nonlocal failed
        read = 0
        async for sound in sounds:
            read += 1
            yield heard([sound])
            if sound.data == b"!" and failed < 3:
                failed += 1
                raise EngineUnavailable("hiccup")
        yield Settled(read)

    stage = listening(fold, retry=Retry(first=0.01), idle_s=0.3, stopped=lambda message, *_: heard([message]))
    loop = make_loop(stage, bus)
    async with tapping(bus, REPLIES) as replies, running(loop):
        await say(bus, "ab!")
        await replies.take(3)
        await eventually(lambda: any(job.recovered for job in jobs_of(loop)))
        (job,) = jobs_of(loop)
        await eventually(lambda: committed(bus) == 3)

    assert (failed, job.recovered, job.outputs) == (3, [], [])


async def test_attempts_are_counted_from_what_was_settled_last(bus: MemoryBus) -> None:
    """A stream of hours may meet more hiccups than one turn may: each one that it gets over is forgotten."""
    hiccups = 0

    async def fold(sounds: Stream) -> Stream:
        nonlocal hiccups
        read = 0
        async for sound in sounds:
            read += 1
            if hiccups == sound.at:
                hiccups += 1
                raise EngineUnavailable("hiccup")
            yield heard([sound])
            yield Settled(read)

    stage = listening(fold, retry=Retry(attempts=2, first=0.01, most=0.01))
    async with tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
        await say(bus, "abcdefgh")
        assert texts(await replies.take(8)) == list("abcdefgh")


class Late(MemoryBus):
    """A bus of which the deliveries to `replies` are to be decided by the test, in order."""

    def __init__(self) -> None:
        super().__init__(partitions=1)
        self.waiting: list[tuple[asyncio.Future[int], asyncio.Future[int]]] = []
        self.prompt = False

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> asyncio.Future[int]:
        """Let replies wait."""
        if topic != REPLIES.name or self.prompt:
            return await super().publish(topic, value, key=key, headers=headers, partition=partition)
        there = await super().publish(topic, value, key=key, headers=headers, partition=partition)
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting.append((told, there))
        return told

    def confirm(self, number: int) -> None:
        """A delivery stands in the log."""
        told, there = self.waiting[number]
        told.set_result(there.result())

    def fail(self, number: int) -> None:
        """A delivery has failed."""
        self.waiting[number][0].set_exception(BusUnavailable("here", "a test says so"))


async def test_settling_waits_for_what_was_said_before_and_the_stream_does_not() -> None:
    """While a delivery is unsure nothing is settled, although reading goes on; in whichever order the news comes."""
    hearing = Hearing()
    async with Late() as bus, running(make_loop(hearing.stage(), bus)):
        await say(bus, "a.b.c.d")
        await eventually(lambda: len(bus.waiting) == 3 and len(hearing.calls[0]) == 7)
        bus.confirm(1)
        await asyncio.sleep(0.1)
        assert committed(bus) == 0
        bus.confirm(0)
        await eventually(lambda: committed(bus) == 4)
        bus.confirm(2)
        await eventually(lambda: committed(bus) == 6)


async def test_what_waits_for_a_delivery_is_bounded_by_what_was_said() -> None:
    """A stage may settle every message it reads: while a delivery is unsure, only the latest word counts."""

    async def fold(sounds: Stream) -> Stream:
        read = 0
        async for sound in sounds:
            read += 1
            if sound.data == b".":
                yield heard([sound])
            yield Settled(read)

    async with Late() as bus, running(loop := make_loop(listening(fold), bus)):
        await say(bus, ".abcdefgh")
        await eventually(lambda: any(job._given == 9 for job in jobs_of(loop)))
        (job,) = jobs_of(loop)
        assert list(job._marks) == [(1, 9)]
        bus.confirm(0)
        await eventually(lambda: committed(bus) == 9)


async def test_a_delivery_that_is_sure_at_the_last_moment_is_not_said_again() -> None:
    """The news of it may come in the same moment as the failure that lets the stage begin again."""
    late = Late()
    calls: list[list[int]] = []

    async def fold(sounds: Stream) -> Stream:
        calls.append([])
        async for sound in sounds:
            calls[-1].append(sound.at)
            if sound.data == b"b" and len(calls) == 1:
                late.confirm(0)
                raise EngineUnavailable("hiccup")
            yield heard([sound])
            yield Settled(len(calls[-1]))

    async with late as bus, running(make_loop(listening(fold, retry=Retry(first=0.01)), bus)):
        await say(bus, "ab")
        await eventually(lambda: len(calls) == 2 and calls[1])

    assert calls == [[0, 1], [1]]


async def test_a_drain_waits_for_what_is_on_its_way() -> None:
    """What was said before it is settled if it gets to the log in time, and committed with the last commit."""
    async with Late() as bus:
        loop = make_loop(Hearing().stage(), bus)
        async with running(loop) as task:
            await say(bus, "a.b")
            await eventually(lambda: bus.waiting)
            loop.drain()
            await asyncio.sleep(0.1)
            assert not task.done()
            bus.confirm(0)
            await asyncio.wait_for(asyncio.shield(task), 5)

        assert committed(bus) == 2


async def test_a_failed_delivery_lets_a_stream_begin_again_at_once() -> None:
    """It is noticed although the stage says nothing more, and what stood before it in the log is not read again."""
    hearing = Hearing()
    async with Late() as bus:
        stage = hearing.stage(retry=Retry(first=0.01))
        async with tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
            await say(bus, "a.b.c")
            await eventually(lambda: len(bus.waiting) == 2 and len(hearing.calls[0]) == 5)
            bus.prompt = True
            bus.confirm(0)
            bus.fail(1)
            await eventually(lambda: len(hearing.calls) == 2 and len(hearing.calls[1]) == 3)
            assert texts(await replies.take(3)) == ["a.", "b.", "b."]
            await eventually(lambda: committed(bus) == 4)

    assert hearing.calls[1] == [2, 3, 4]


async def test_a_turn_with_an_end_settles_too_and_is_done_again_from_there() -> None:
    """A folding stage that is not open-ended: what failed is said again from the first unsettled message on."""
    calls: list[list[int]] = []

    async def fold(tokens: Stream) -> Stream:
        calls.append([])
        async for message in tokens:
            calls[-1].append(getattr(message, "index", -1))
            if isinstance(message, Tokens):
                yield Delta("s", "t1", message.index, "x", message.index + 1)
                yield Settled(len(calls[-1]))
        yield Finished("s", "t1", status="completed")

    stage = Stage("post", TOKENS, folding=fold, last=lambda message: isinstance(message, Done), retry=Retry(first=0.01))
    async with Late() as bus, tapping(bus, REPLIES) as replies, running(loop := make_loop(stage, bus)):
        for index in range(3):
            await put(bus, Tokens("s", "t1", index, (index,)))
        await put(bus, Done("s", "t1", "stop"))
        await eventually(lambda: len(bus.waiting) == 4)
        bus.prompt = True
        bus.confirm(0)
        bus.fail(1)
        bus.confirm(2)
        bus.confirm(3)
        said = await replies.take(4 + 3)
        await eventually(lambda: not any(holding.window.span for holding in loop._holdings.values()))

    assert calls == [[0, 1, 2, -1], [1, 2, -1]]
    assert [getattr(message, "at", "end") for message in said] == [0, 1, 2, "end", 1, 2, "end"]


async def test_the_last_message_of_a_turn_stays_until_its_end(bus: MemoryBus) -> None:
    """A stage that settles all and then breaks is called again with the last message: it is not left waiting."""
    calls: list[int] = []

    async def fold(sounds: Stream) -> Stream:
        read = [sound.at async for sound in sounds]
        calls.append(len(read))
        yield Settled(len(read))
        if len(calls) == 1:
            raise EngineUnavailable("hiccup")
        yield Finished("s", "audio", status="completed")

    async with (
        tapping(bus, REPLIES) as replies,
        running(make_loop(listening(fold, retry=Retry(first=0.01)), bus)),
    ):
        at = await say(bus, "abc")
        await end(bus, at)
        await replies.take(1)
        await eventually(lambda: committed(bus) == 4)

    assert calls == [4, 1]


async def test_a_stage_cannot_settle_what_it_was_not_given(bus: MemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    """It is told so by name, in a dead letter, and its client gets one word."""

    async def fold(sounds: Stream) -> Stream:
        async for _ in sounds:
            yield Settled(2)

    async with (
        tapping(bus, DEAD_LETTERS) as letters,
        tapping(bus, REPLIES) as replies,
        running(make_loop(listening(fold), bus)),
    ):
        await say(bus, "a")
        (letter,), (end_of_it,) = await letters.take(1), await replies.take(1)

    assert letter.error == "ValueError: Settled(2) from a stage that was given only 1 messages so far"
    assert end_of_it.status == "failed"
    assert "for good" in caplog.text


async def test_only_a_folding_stage_settles(bus: MemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    """For a stage with one message a turn there is nothing to settle, and it is told so."""

    async def each(turn: Message) -> Stream:
        yield make_prompt(turn.turn)
        yield Settled(1)

    async with tapping(bus, DEAD_LETTERS) as letters, running(make_loop(Stage("text", TURNS, each=each), bus)):
        await put(bus, make_turn("t1"))
        (letter,) = await letters.take(1)

    assert "a stage that is not folding" in letter.error
    assert "for good" in caplog.text


async def test_in_a_chain_nothing_is_settled(bus: MemoryBus) -> None:
    """A chain has one message a turn, so that word of a stage in it is dropped, and the rest comes through."""

    async def to_tokens(turn: Message) -> Stream:
        for index in range(3):
            yield Tokens(turn.session, turn.turn, index, (index,))
        yield Done(turn.session, turn.turn, "stop")

    async def fold(tokens: Stream) -> Stream:
        read = 0
        async for message in tokens:
            read += 1
            yield Delta(message.session, message.turn, read - 1, "x", read)
            yield Settled(read)
        yield Finished("s", "t1", status="completed")

    post = Stage("post", TOKENS, folding=fold, last=lambda message: isinstance(message, Done))
    stage = chain(Stage("llm", TURNS, each=to_tokens), post)
    async with tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
        await put(bus, make_turn("t1"))
        said = await replies.take(5)
        assert await replies.silent()

    assert [getattr(message, "at", "end") for message in said] == [0, 1, 2, 3, "end"]
    assert await bus.end(Part(PROMPTS.name, 0)) == 0


async def test_what_was_published_is_let_go_though_no_message_is_settled(bus: MemoryBus) -> None:
    """Of a message of which much comes, the job holds what is not in the log yet, and for the last word what came last.

    Whoever takes the turn over begins with that message again.
    """
    known: list[list[str]] = []
    parts = "x" * 500

    def stopped(message: Message, published: Any, reason: Any) -> Message:
        known.append([str(one.at) for one in published])
        return Finished(message.session, message.turn, status="cancelled")

    async def fold(sounds: Stream) -> Stream:
        async for sound in sounds:
            for at, text in enumerate(parts):
                yield Delta(sound.session, sound.turn, at, text, at)
                yield Settled(0)

    async with (
        tapping(bus, REPLIES) as replies,
        running(loop := make_loop(listening(fold, stopped=stopped), bus, settings=QUICK)),
    ):
        await say(bus, "a")
        await replies.take(len(parts))
        (job,) = jobs_of(loop)
        await eventually(lambda: not job.outputs)
        assert (len(job._messages), list(job._marks), [one.at for one in job.recovered]) == (1, [], [499])  # type: ignore[attr-defined]
        assert committed(bus) == 0
        await put(bus, Cancel("s", "audio"))
        await replies.take(1)

    assert known == [["499"]]


async def test_what_was_published_counts_from_what_was_settled(bus: MemoryBus) -> None:
    """Who has the last word about a stream that is given up gets what was said since the last settled message."""
    known: list[list[str]] = []

    def stopped(message: Message, published: Any, reason: Any) -> Message:
        known.append(texts(published))
        return Finished(message.session, message.turn, status="cancelled")

    async def fold(sounds: Stream) -> Stream:
        read = 0
        async for sound in sounds:
            read += 1
            yield heard([sound])
            if sound.data == b".":
                yield Settled(read)

    async with (
        tapping(bus, REPLIES) as replies,
        running(make_loop(listening(fold, stopped=stopped), bus, settings=QUICK)),
    ):
        await say(bus, "ab.cd")
        await replies.take(5)
        await put(bus, Cancel("s", "audio"))
        await replies.take(1)

    assert known == [["c", "d"]]
