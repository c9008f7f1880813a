"""The loop on both buses: what holds in the process holds on a real broker, with deaths, rebalances and outages."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from pipeline.bus import Bus, Record
from pipeline.errors import OwnershipLost
from pipeline.headers import CLAIM, REPLY_TO
from pipeline.kafka import KafkaBus, create_topics
from pipeline.loop import Loop
from pipeline.memory import MemoryBus
from pipeline.messages import DeadLetter, Done, Finished, Message, Prompt, Tokens, Turn
from pipeline.stage import Stage, Stream
from pipeline.topics import DEAD_LETTERS, PROMPTS, REPLIES, ROUTE, TOKENS, TURNS
from tests.pipeline.buses import crash, settings_for
from tests.pipeline.fakes import DEADLINE, eventually, ids_of, make_loop, make_prompt, make_turn, put, running, tapping
from tests.services import KafkaService

PARTITIONS = 4


@asynccontextmanager
async def kafka_route(kafka: KafkaService) -> AsyncGenerator[KafkaBus, None]:
    """A bus in Kafka with a route of its own."""
    settings = settings_for(kafka)
    await create_topics(settings, ROUTE, partitions=PARTITIONS)
    async with KafkaBus(settings) as bus:
        yield bus


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
async def bus(request: pytest.FixtureRequest) -> AsyncGenerator[Bus, None]:
    """A bus of either kind with the whole route."""
    if request.param == "memory":
        async with MemoryBus(partitions=PARTITIONS, max_message=64 << 10) as bus:
            yield bus
    else:
        async with kafka_route(request.getfixturevalue("kafka")) as bus:
            yield bus


async def kill(loop: Loop, task: asyncio.Task[None]) -> None:
    """End a loop as kill -9 would: no commit, no goodbye."""
    assert loop._member is not None
    member = loop._member
    member.commit = _refuse  # type: ignore[method-assign]
    await crash(member)
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE)


async def _refuse(offsets: object, notes: object = None) -> None:
    raise OwnershipLost("g", "killed")


@asynccontextmanager
async def doomed(loop: Loop) -> AsyncGenerator[asyncio.Task[None], None]:
    """`loop` at work, to be killed within."""
    task = asyncio.create_task(loop.run())
    await eventually(lambda: loop.joined or task.done())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)


async def prompt_of(turn: Turn) -> Stream:
    """A turn's prompt."""
    yield make_prompt(turn.turn, turn.session)


def text(each: object = prompt_of, **options: object) -> Stage:
    """A stage from turns to prompts."""
    return Stage("text", TURNS, each=each, **options)  # type: ignore[arg-type]


async def test_each_key_keeps_its_order_through_a_stage(bus: Bus) -> None:
    """Sessions are worked on side by side, the turns of each one after the other."""

    async def handle(turn: Turn) -> Stream:
        await asyncio.sleep(hash(turn.turn) % 5 / 1000)
        yield make_prompt(turn.turn, turn.session)

    async with tapping(bus, PROMPTS) as prompts, running(make_loop(text(handle), bus)):
        for n in range(120):
            await put(bus, make_turn(f"{n}", f"s{n % 10}"))
        came = await prompts.take(120)

    by_session = defaultdict(list)
    for prompt in came:
        by_session[prompt.session].append(int(prompt.turn))
    assert dict(by_session) == {f"s{s}": list(range(s, 120, 10)) for s in range(10)}


async def test_a_loop_that_is_killed_loses_nothing(bus: Bus) -> None:
    """What was in hand and not committed is done again by another; what was finished long ago is not."""
    stuck, seen = asyncio.Event(), []

    async def hang(turn: Turn) -> Stream:
        if int(turn.turn) >= 20:
            await stuck.wait()
        yield make_prompt(turn.turn, turn.session)

    async def handle(turn: Turn) -> Stream:
        seen.append(int(turn.turn))
        yield make_prompt(turn.turn, turn.session)

    async with tapping(bus, PROMPTS) as prompts:
        first = make_loop(text(hang), bus)
        async with doomed(first) as task:
            for n in range(20):
                await put(bus, make_turn(f"{n}", f"s{n}"))
            await prompts.take(20)
            await asyncio.sleep(0.3)  # for the commit
            for n in range(20, 40):
                await put(bus, make_turn(f"{n}", f"s{n}"))
            await asyncio.sleep(0.1)
            await kill(first, task)
        async with running(make_loop(text(handle), bus)):
            await eventually(lambda: set(seen) >= set(range(20, 40)))
            await asyncio.sleep(0.2)

    assert sorted(seen) == list(range(20, 40))


async def test_work_in_hand_goes_on_through_a_rebalance(bus: Bus) -> None:
    """A second loop joins and leaves while turns run; each turn's work is finished, and nothing is left out."""
    started: defaultdict[str, int] = defaultdict(int)
    gate = asyncio.Event()

    async def handle(turn: Turn) -> Stream:
        started[turn.turn] += 1
        await gate.wait()
        yield make_prompt(turn.turn, turn.session)

    async with tapping(bus, PROMPTS) as prompts:
        one, two = make_loop(text(handle), bus, group="g"), make_loop(text(handle), bus, group="g")
        async with running(one):
            for n in range(24):
                await put(bus, make_turn(f"{n}", f"s{n}"))
            await eventually(lambda: len(started) == 24)
            async with running(two):
                await eventually(lambda: len(one.parts) == len(two.parts) == PARTITIONS // 2)
                kept = one.parts
                gate.set()
                came = {prompt.turn for prompt in await prompts.take(24)}
            await eventually(lambda: len(one.parts) == PARTITIONS)

    assert came == {str(n) for n in range(24)}
    assert len(kept) == 2
    assert sum(count == 1 for count in started.values()) > 0  # of the kept partitions: begun once, gone on with
    assert max(started.values()) <= 3


async def test_a_partition_is_paused_at_the_bound(bus: Bus) -> None:
    """With one turn stuck, no more than the span is started; when it ends, the rest follows."""
    gate, seen = asyncio.Event(), []

    async def handle(turn: Turn) -> Stream:
        if turn.turn == "0":
            await gate.wait()
        seen.append(turn.turn)
        yield make_prompt(turn.turn, turn.session)

    loop = make_loop(text(handle, span=10, concurrency=100), bus)
    async with tapping(bus, PROMPTS) as prompts, running(loop):
        for n in range(60):
            await put(bus, make_turn(f"{n}", f"s{n}"), key="one partition" if n == 0 else f"k{n}")
        for n in range(60, 100):
            await put(bus, make_turn(f"{n}", f"s{n}"), key="one partition")
        await eventually(lambda: len(seen) >= 9)
        await asyncio.sleep(0.3)
        assert max((holding.window.span for holding in loop._holdings.values()), default=0) <= 10
        gate.set()
        came = await prompts.take(100)

    assert {prompt.turn for prompt in came} == {str(n) for n in range(100)}


async def test_an_answer_that_is_too_large_becomes_a_dead_letter(bus: Bus) -> None:
    """The record is set aside with the topic and the sizes named, the client hears of it, and the next is served."""

    async def handle(turn: Turn) -> Stream:
        size = 40_000 if turn.turn == "large" else 3
        yield make_prompt(turn.turn, turn.session, ids=[100_000] * size)

    async with (
        tapping(bus, PROMPTS) as prompts,
        tapping(bus, DEAD_LETTERS) as letters,
        tapping(bus, REPLIES) as replies,
        running(make_loop(text(handle), bus)),
    ):
        await put(bus, make_turn("large"), **{REPLY_TO: "2"})
        await put(bus, make_turn("small"))
        (letter,), (reply,) = await letters.take(1), await replies.take(1)
        (prompt,) = await prompts.take(1)

    assert isinstance(letter, DeadLetter)
    assert "MessageTooLarge" in letter.error
    assert "'prompts'" in letter.error
    assert isinstance(reply, Finished)
    assert (reply.turn, reply.status) == ("large", "failed")
    assert prompt.turn == "small"


async def test_an_answer_is_gone_on_with_after_a_death_in_its_middle(bus: Bus) -> None:
    """The successor publishes exactly what the dead one had not, under a newer claim."""

    def llm(permits: asyncio.Semaphore) -> Stage:
        async def answer(prompt: Prompt) -> Stream:
            for index in range(len(prompt.emitted), 12):
                await permits.acquire()
                yield Tokens(prompt.session, prompt.turn, index, (index,))
            yield Done(prompt.session, prompt.turn, "stop")

        def resume(prompt: Message, before: object) -> Message | None:
            assert isinstance(prompt, Prompt)
            return Prompt(
                prompt.session,
                prompt.turn,
                prompt.ids,
                prompt.sampling,
                emitted=tuple(ids_of(before)),  # type: ignore[arg-type]
            )

        return Stage("llm", PROMPTS, each=answer, journal=TOKENS, resume=resume)

    async with tapping(bus, TOKENS) as tokens:
        first = make_loop(llm(asyncio.Semaphore(5)), bus, group="llm")
        async with doomed(first) as task:
            await put(bus, make_prompt("t"))
            records: list[Record] = []
            while sum(CLAIM not in record.headers for record in records) < 5:
                records.append(await tokens.record())
            await kill(first, task)
        async with running(make_loop(llm(asyncio.Semaphore(100)), bus, group="llm")):
            while sum(CLAIM not in record.headers for record in records) < 13:
                records.append(await tokens.record())

    answers = [TOKENS.decode(record.value) for record in records if CLAIM not in record.headers]
    assert [getattr(message, "index", "done") for message in answers] == [*range(12), "done"]


@pytest.mark.slow
@pytest.mark.kafka
async def test_a_loop_outlives_its_broker(own_kafka: KafkaService) -> None:
    """The broker is killed and comes back: every turn is answered, in order, and nobody has to help.

    What was not committed may be answered again: slow to return, the group has given the loop up.
    """
    async with kafka_route(own_kafka) as bus, tapping(bus, PROMPTS) as prompts, running(make_loop(text(), bus)):
        for n in range(20):
            await put(bus, make_turn(f"{n}", f"s{n % 3}"))
        came = await prompts.take(20)
        own_kafka.kill()
        sent = [
            await bus.publish("turns", TURNS.encode(make_turn(f"{n}", f"s{n % 3}")), key=f"s{n % 3}", headers={})
            for n in range(20, 40)
        ]
        await asyncio.to_thread(own_kafka.restart)
        await asyncio.wait_for(asyncio.gather(*sent), 40)
        while len({prompt.turn for prompt in came}) < 40:
            came += await prompts.take(1)

    for session in range(3):
        turns = dict.fromkeys(int(prompt.turn) for prompt in came if prompt.session == f"s{session}")
        assert list(turns) == list(range(session, 40, 3))


@pytest.mark.slow
@pytest.mark.kafka
async def test_a_loop_that_its_group_gave_up_is_let_in_again(kafka: KafkaService) -> None:
    """With work in hand when it falls silent: another does it, and later it takes its share of what is new."""
    stuck = asyncio.Event()
    by_first: list[str] = []

    async def hang(turn: Turn) -> Stream:
        by_first.append(turn.turn)
        if int(turn.turn) < 20:
            await stuck.wait()
        yield make_prompt(turn.turn, turn.session)

    async with kafka_route(kafka) as bus, tapping(bus, PROMPTS) as prompts:
        silent = make_loop(text(hang), bus)
        async with running(silent):
            for n in range(20):
                await put(bus, make_turn(f"{n}", f"s{n}"))
            await eventually(lambda: len(by_first) == 20)
            coordinator = silent._member._consumer._coordinator  # type: ignore[union-attr]
            await coordinator._stop_heartbeat_task()
            async with running(make_loop(text(), bus)):
                came = await prompts.take(20)
                coordinator._start_heartbeat_task()
                await eventually(lambda: len(silent._holdings) == PARTITIONS // 2)
                stuck.set()
                for n in range(20, 40):
                    await put(bus, make_turn(f"{n}", f"s{n - 20}"))
                came += await prompts.take(20)
                assert await prompts.silent()

    assert sorted(int(prompt.turn) for prompt in came) == list(range(40))
    assert set(by_first) & {f"{n}" for n in range(20, 40)}


@pytest.mark.kafka
async def test_a_loop_whose_place_was_taken_ends(kafka: KafkaService) -> None:
    """A worker whose static identity another has now stops with a clear error, and its successor works on."""
    settings = settings_for(kafka, group_instance_id="me")
    await create_topics(settings, ROUTE, partitions=PARTITIONS)
    async with KafkaBus(settings) as bus, tapping(bus, PROMPTS) as prompts:
        zombie = make_loop(text(), bus)
        async with doomed(zombie) as task, running(make_loop(text(), bus)):
            await asyncio.wait([task], timeout=DEADLINE)
            with pytest.raises(OwnershipLost):
                await task
            await put(bus, make_turn("t"))
            assert [prompt.turn for prompt in await prompts.take(1)] == ["t"]
