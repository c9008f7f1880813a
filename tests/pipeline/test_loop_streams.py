"""Long streams on both buses: whatever happens to the workers, each turn is told, and none from its middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from pipeline.bus import Bus, Part
from pipeline.loop import Loop, LoopSettings
from pipeline.memory import MemoryBus
from pipeline.topics import REPLIES
from pipeline.voice import Sound
from tests.pipeline.fakes import Tap, eventually, make_loop, put, running, tapping
from tests.pipeline.streams import Hearing, end, say, texts
from tests.pipeline.test_loop_contract import PARTITIONS, doomed, kafka_route, kill
from tests.services import KafkaService


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
async def bus(request: pytest.FixtureRequest) -> AsyncGenerator[Bus, None]:
    """A bus of either kind with the whole route."""
    if request.param == "memory":
        async with MemoryBus(partitions=PARTITIONS) as bus:
            yield bus
    else:
        async with kafka_route(request.getfixturevalue("kafka")) as bus:
            yield bus


def hearing_loop(hearing: Hearing, bus: Bus, **options: Any) -> Loop:
    """A loop that hears."""
    return make_loop(hearing.stage(**options), bus, group="speech")


def committed(loop: Loop) -> int:
    """The offsets before which all is committed, together."""
    return sum(holding.committed[0] for holding in loop._holdings.values() if holding.committed)


async def all_of(replies: Tap, *, turns: int) -> dict[str, set[str]]:
    """Every turn's text, by its name, once so many are known. Those that are told again are told the same."""
    found: dict[str, set[str]] = {}
    while len(found) < turns:
        for told in await replies.take(1):
            found.setdefault(told.item, set()).add(told.text)
    return found


async def test_the_commit_moves_on_with_a_stream_that_does_not_end(bus: Bus) -> None:
    """What is settled is committed while the stream goes on, and nothing of it is held any more."""
    hearing = Hearing()
    async with tapping(bus, REPLIES) as replies, running(loop := hearing_loop(hearing, bus)):
        at = 0
        for n in range(50):
            at = await say(bus, "some words.", at=at)
            if n % 10 == 9:
                await replies.take(10)
                await eventually(lambda: committed(loop) == at)  # noqa: B023 - it is awaited here
        (job,) = [job for holding in loop._holdings.values() for job in holding.jobs.values()]
        assert not job.outputs
        assert not sum(holding.window.span for holding in loop._holdings.values())

    assert len(hearing.calls) == 1


async def test_after_a_death_every_stream_goes_on_where_it_was_settled(bus: Bus) -> None:
    """Streams of one partition are settled at different places; none begins before its own, although one holds all up.

    The slow one keeps the partition's commit at its first message.
    """
    first, second = Hearing(), Hearing()
    async with tapping(bus, REPLIES) as replies:
        dying = hearing_loop(first, bus)
        async with doomed(dying) as task:
            await say(bus, "slow ", stream="slow", key="k")
            ats = {name: await say(bus, f"{name} one.{name} tw", stream=name, key="k") for name in ("a", "b")}
            ats["a"] = await say(bus, "o.a thr", stream="a", at=ats["a"], key="k")
            assert len(await all_of(replies, turns=3)) == 3
            await asyncio.sleep(0.3)  # for the commit
            await kill(dying, task)
        async with running(hearing_loop(second, bus)):
            ats["a"] = await say(bus, "ee.", stream="a", at=ats["a"], key="k")
            ats["b"] = await say(bus, "o.", stream="b", at=ats["b"], key="k")
            await say(bus, "and steady.", stream="slow", at=5, key="k")
            assert sorted(texts(await replies.take(3))) == ["a three.", "b two.", "slow and steady."]
            assert await replies.silent()

    begins = sorted(call[0] for call in second.calls)
    assert begins == sorted([0, len("a one.a two."), len("b one.")])


async def test_a_stream_that_has_ended_is_not_begun_in_its_middle(bus: Bus) -> None:
    """Nor begun anew with what came behind its end, whoever owns its partition, and however long that is held up."""
    ended = [Hearing() for _ in range(3)]
    async with tapping(bus, REPLIES) as replies:
        await put(bus, Sound("s", "done", at=0, data=b"x."), key="k")
        for hearing in ended:
            dying = hearing_loop(hearing, bus)
            async with doomed(dying) as task:
                if hearing is ended[0]:
                    await replies.take(1)
                    await say(bus, "slow", stream="slow", key="k")
                    at = await say(bus, "y.z.", at=1, stream="done", key="k")
                    await put(bus, Sound("s", "done", at=at, then="end"), key="k")
                    await replies.take(2)
                    await say(bus, "w.", at=at, stream="done", key="k")
                await eventually(lambda: any(call[:1] == [0] and len(call) == 4 for call in hearing.calls))  # noqa: B023
                await asyncio.sleep(0.3)  # for the commit
                await kill(dying, task)
        assert await replies.silent()

    assert [len(hearing.calls) for hearing in ended] == [2, 1, 1]


async def test_streams_move_with_their_partitions_and_back(bus: Bus) -> None:
    """Workers come and go while many speak; every turn is told whole, and again only as it was told before."""
    one, two = Hearing(), Hearing()
    names = [f"audio_{n}" for n in range(12)]
    ats = dict.fromkeys(names, 0)

    async def speak(words: Sequence[str]) -> None:
        for word in words:
            for name in names:
                ats[name] = await say(bus, word, stream=name, session=name, at=ats[name])
            await asyncio.sleep(0.02)

    async with tapping(bus, REPLIES) as replies, running(first := hearing_loop(one, bus)):
        await speak(["one.", "two.", "th"])
        async with running(second := hearing_loop(two, bus)):
            speaking = asyncio.create_task(speak(["ree.", "four.", "fi", "ve.", "si"]))
            await eventually(lambda: len(first.parts) == len(second.parts) == PARTITIONS // 2)
            await speaking
        await eventually(lambda: len(first.parts) == PARTITIONS)
        await speak(["x.", "seven."])
        found = await all_of(replies, turns=7 * len(names))

    words = ["one.", "two.", "three.", "four.", "five.", "six.", "seven."]
    starts = [sum(map(len, words[:n])) for n in range(len(words))]
    assert found == {f"{name}@{at}": {word} for name in names for at, word in zip(starts, words, strict=True)}
    assert two.calls


async def test_a_drain_hands_a_stream_over_where_it_is_settled(bus: Bus) -> None:
    """A worker that stops commits what is settled, waits for no end, and the next reads on from there."""
    one, two = Hearing(), Hearing()
    slow = LoopSettings(commit_every=60.0, drain=20.0)
    async with tapping(bus, REPLIES) as replies:
        loop = make_loop(one.stage(), bus, group="speech", settings=slow)
        async with running(loop):
            at = await say(bus, "one.tw")
            await replies.take(1)
            await eventually(lambda: one.calls and len(one.calls[0]) == 6)
        async with running(hearing_loop(two, bus)):
            at = await say(bus, "o.", at=at)
            await end(bus, at)
            assert texts(await replies.take(1)) == ["two."]
            assert await replies.silent()

    assert two.calls == [[4, 5, 6, 7, 8]]
    assert one.ended == 0


async def test_silence_ends_a_stream_and_its_next_word_begins_it_again(bus: Bus) -> None:
    """Nothing of a silent stream is held, whoever owns it; and it is not forgotten that it may go on."""
    one, two = Hearing(), Hearing()
    async with tapping(bus, REPLIES) as replies:
        async with running(loop := hearing_loop(one, bus, idle_s=0.3)):
            at = await say(bus, "one.tw")
            assert texts(await replies.take(2)) == ["one.", "tw"]
            await eventually(lambda: committed(loop) == at)
            at = await say(bus, "three.", at=at)
            assert texts(await replies.take(1)) == ["three."]
        async with running(hearing_loop(two, bus)):
            await say(bus, "four.", at=at)
            assert texts(await replies.take(1)) == ["four."]
            assert await replies.silent()

    assert [call[0] for call in one.calls + two.calls] == [0, 6, 12]


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(150)
async def test_streams_outlive_their_broker(own_kafka: KafkaService) -> None:
    """It is killed while many speak, and comes back: every turn is told whole, from its beginning, and is settled."""
    hearing, names, found = Hearing(), [f"audio_{n}" for n in range(6)], dict[str, set[str]]()
    words = {0: "one.", 4: "two.", 8: "three.", 14: "four."}
    async with (
        kafka_route(own_kafka) as bus,
        tapping(bus, REPLIES) as replies,
        running(loop := hearing_loop(hearing, bus)),
    ):
        for name in names:
            await say(bus, "one.tw", stream=name, session=name)
        assert len(await all_of(replies, turns=len(names))) == len(names)
        own_kafka.kill()
        saying = [asyncio.create_task(say(bus, "o.three.", stream=n, session=n, at=6)) for n in names]
        await asyncio.to_thread(own_kafka.restart)
        await asyncio.wait_for(asyncio.gather(*saying), 40)
        for name in names:
            await say(bus, "four.", stream=name, session=name, at=14)
        while not found.keys() >= {f"{name}@14" for name in names}:
            for told in await replies.take(1):
                found.setdefault(told.item, set()).add(told.text)
        await eventually(lambda: committed(loop) == 19 * len(names))

    assert {item: {words[int(item.rpartition("@")[2])]} for item in found} == found
    assert len(found) >= 3 * len(names)


async def test_the_parts_of_one_topic_are_noted_apart(bus: Bus) -> None:
    """Two partitions with offsets that are alike do not share what is settled."""
    first, second = Hearing(), Hearing()
    names = [f"audio_{n}" for n in range(8)]
    async with tapping(bus, REPLIES) as replies:
        dying = hearing_loop(first, bus)
        async with doomed(dying) as task:
            for name in names:
                await say(bus, "x", stream="slow" + name, session=name)
                await say(bus, "a.b", stream=name, session=name)
            await replies.take(len(names))
            await asyncio.sleep(0.3)  # for the commit
            await kill(dying, task)
        async with running(hearing_loop(second, bus)):
            for name in names:
                await say(bus, ".", at=3, stream=name, session=name)
            assert texts(await replies.take(len(names))) == ["b."] * len(names)
            assert await replies.silent()

    ends = [await bus.end(Part("audio", number)) for number in range(PARTITIONS)]
    assert sum(count > 0 for count in ends) > 1
