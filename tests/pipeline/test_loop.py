"""The loop on the memory bus: what a stage can rely on whatever happens around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pipeline import request
from pipeline.bus import Headers, Part
from pipeline.errors import BusUnavailable, EngineUnavailable, PromptTooLong, TopicMismatch
from pipeline.headers import CLAIM, DEADLINE, EPOCH, REPLY_TO, TENANT, TRACE
from pipeline.journal import claim
from pipeline.loop import Loop, LoopSettings
from pipeline.memory import MemoryBus
from pipeline.messages import Cancel, Delta, Done, Finished, Message, Prompt, Tokens, Turn, Usage
from pipeline.request import Request
from pipeline.stage import Retry, Stage, Stream, chain
from pipeline.topics import CONTROL, DEAD_LETTERS, PROMPTS, REPLIES, ROUTE, TOKENS, TURNS, Topic
from tests.pipeline.fakes import eventually, ids_of, make_loop, make_prompt, make_turn, published, put, running, tapping


@pytest.fixture
async def bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus with two partitions a topic."""
    async with MemoryBus(partitions=2) as bus:
        yield bus


def text_stage(handle: Any, **options: Any) -> Stage:
    """A stage from turns to prompts."""
    return Stage("text", TURNS, each=handle, **options)


async def to_prompt(turn: Turn) -> Stream:
    """A turn's prompt."""
    yield make_prompt(turn.turn, turn.session)


def resume(prompt: Any, before: Sequence[Any]) -> Message | None:
    """Go on after what was published."""
    if any(isinstance(message, Done) for message in before):
        return None
    return Prompt(prompt.session, prompt.turn, prompt.ids, prompt.sampling, emitted=tuple(ids_of(before)))


def counting_llm(gate: asyncio.Semaphore | None = None, length: int = 10, **options: Any) -> Stage:
    """An LLM whose answer is 0, 1, 2…, one token for each permit of `gate`."""

    async def answer(prompt: Prompt) -> Stream:
        for index in range(len(prompt.emitted), length):
            if gate is not None:
                await gate.acquire()
            yield Tokens(prompt.session, prompt.turn, index, (index,))
        yield Done(prompt.session, prompt.turn, "stop", Usage(len(prompt.ids), length))

    def stopped(message: Message, before: Sequence[Message], reason: Any) -> Message:
        return Done(message.session, message.turn, reason, Usage(0, len(ids_of(before))))

    return Stage("llm", PROMPTS, each=answer, journal=TOKENS, resume=resume, stopped=stopped, **options)


async def test_a_message_goes_in_and_its_answer_comes_out_with_its_headers(bus: MemoryBus) -> None:
    """The headers of a request travel on to what comes of it, and the key as well."""
    async with tapping(bus, PROMPTS) as prompts, running(make_loop(text_stage(to_prompt), bus)):
        await put(bus, make_turn("t1"), **{REPLY_TO: "1", TRACE: "00-ab-cd-01", "unknown": "stays behind"})
        record = await prompts.record()

    assert PROMPTS.decode(record.value) == make_prompt("t1")
    assert record.key == "s"
    assert record.headers == {REPLY_TO: "1", "turn": "t1", TRACE: "00-ab-cd-01"}


async def test_a_stage_can_ask_whose_turn_it_works_on(bus: MemoryBus) -> None:
    """Tenant and deadline of the request are there for the stage, turn by turn, although no message carries them."""
    seen: list[tuple[str, Request]] = []

    async def handle(turn: Turn) -> Stream:
        seen.append((turn.turn, request.current()))
        yield make_prompt(turn.turn, turn.session)

    later = time.time() + 7
    async with tapping(bus, PROMPTS) as prompts, running(make_loop(text_stage(handle), bus)):
        await put(bus, make_turn("t1"), **{TENANT: "acme", DEADLINE: str(later)})
        await put(bus, make_turn("t2"))
        await prompts.take(2)

    assert seen[0] == ("t1", Request("acme", later))
    assert seen[1][1].tenant == "default"
    assert seen[1][1].deadline > later


async def test_one_key_is_worked_on_in_order_and_others_beside_it(bus: MemoryBus) -> None:
    """A slow turn holds up its own session's next one, and nobody else's."""
    gate, order = asyncio.Event(), []

    async def handle(turn: Turn) -> Stream:
        if turn.turn == "slow":
            await gate.wait()
        order.append(turn.turn)
        yield make_prompt(turn.turn, turn.session)

    async with tapping(bus, PROMPTS) as prompts, running(make_loop(text_stage(handle), bus)):
        await put(bus, make_turn("slow", "a"))
        await put(bus, make_turn("after", "a"))
        for number in range(20):
            await put(bus, make_turn(f"t{number}", f"b{number}"))
        await prompts.take(20)
        assert "after" not in order
        gate.set()
        await prompts.take(2)

    assert order[-2:] == ["slow", "after"]


async def test_only_what_is_before_the_oldest_unfinished_is_committed(bus: MemoryBus) -> None:
    """A loop that is killed leaves the unfinished turn, and all behind it, to its successor."""
    stuck = asyncio.Event()

    async def handle(turn: Turn) -> Stream:
        if turn.turn == "t1":
            await stuck.wait()
        yield make_prompt(turn.turn, turn.session)

    seen: list[str] = []

    async def note(turn: Turn) -> Stream:
        seen.append(turn.turn)
        yield make_prompt(turn.turn)

    async with tapping(bus, PROMPTS) as prompts:
        first = make_loop(text_stage(handle), bus)
        task = asyncio.create_task(first.run())
        for number in range(4):
            await put(bus, make_turn(f"t{number}", f"s{number}"), key="one partition")
        await prompts.take(1)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
    async with running(make_loop(text_stage(note), bus)):
        await eventually(lambda: len(seen) == 3)

    assert seen == ["t1", "t2", "t3"]


async def test_a_refusal_goes_to_the_client_at_once_and_the_next_turn_is_served(bus: MemoryBus) -> None:
    """A refused turn ends in one failed reply with its code, on the partition its gateway reads."""

    async def handle(turn: Turn) -> Stream:
        if turn.turn == "t1":
            raise PromptTooLong(got=9, limit=5)
        yield make_prompt(turn.turn, turn.session)

    async with (
        tapping(bus, REPLIES) as replies,
        tapping(bus, PROMPTS) as prompts,
        running(make_loop(text_stage(handle), bus)),
    ):
        await put(bus, make_turn("t1"), **{REPLY_TO: "1"})
        await put(bus, make_turn("t2"))
        record = await replies.record()
        await prompts.take(1)

    refusal = REPLIES.decode(record.value)
    assert (refusal.turn, refusal.status, refusal.problem.code) == ("t1", "failed", "context_length_exceeded")
    assert record.part == Part("replies", 1)


async def test_what_a_retry_can_mend_is_tried_again(bus: MemoryBus) -> None:
    """An engine that is not there at first answers at the third attempt, once."""
    attempts = 0

    async def handle(turn: Turn) -> Stream:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise EngineUnavailable("starting")
        yield make_prompt(turn.turn)

    stage = text_stage(handle, retry=Retry(attempts=3, first=0.01))
    async with tapping(bus, PROMPTS) as prompts, running(make_loop(stage, bus)):
        await put(bus, make_turn("t1"))
        await prompts.take(1)
        assert await prompts.silent()

    assert attempts == 3


async def test_a_retry_in_mid_answer_goes_on_after_what_was_published(bus: MemoryBus) -> None:
    """An engine that breaks after four tokens does not make the client see them twice."""
    broken = False

    async def handle(prompt: Prompt) -> Stream:
        nonlocal broken
        for index in range(len(prompt.emitted), 8):
            if index == 4 and not broken:
                broken = True
                raise EngineUnavailable("hiccup")
            yield Tokens(prompt.session, prompt.turn, index, (index,))
        yield Done(prompt.session, prompt.turn, "stop")

    stage = Stage("llm", PROMPTS, each=handle, journal=TOKENS, resume=resume, retry=Retry(first=0.01))
    async with tapping(bus, TOKENS) as tokens, running(make_loop(stage, bus)):
        await put(bus, make_prompt("t1"))
        records = [record for record in [await tokens.record() for _ in range(11)] if CLAIM not in record.headers]

    assert [getattr(TOKENS.decode(r.value), "index", "done") for r in records] == [0, 1, 2, 3, 4, 5, 6, 7, "done"]


async def test_what_fails_for_good_becomes_a_dead_letter_and_one_failed(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a stage costs its turn and nothing else; the operator has the record, the client one word.

    The letter says where it happened and what the error said; the log, which all may read, only where.
    """

    async def handle(turn: Turn) -> Stream:
        if turn.turn == "t1":
            raise KeyError(f"a bug in {turn.conversation[0].text}")
        yield make_prompt(turn.turn)

    async with (
        tapping(bus, DEAD_LETTERS) as letters,
        tapping(bus, REPLIES) as replies,
        tapping(bus, PROMPTS) as prompts,
        running(make_loop(text_stage(handle), bus)),
    ):
        await put(bus, make_turn("t1"))
        await put(bus, make_turn("t2"))
        (letter,), (reply,) = await letters.take(1), await replies.take(1)
        await prompts.take(1)

    assert (letter.stage, letter.topic, letter.key, letter.attempts) == ("text", "turns", "s", 1)
    assert "KeyError" in letter.error
    assert TURNS.decode(letter.value) == make_turn("t1")
    assert (reply.turn, reply.status, reply.problem.code) == ("t1", "failed", "internal_error")
    assert "a bug" not in reply.problem.message
    assert "in handle" in letter.traceback
    assert letter.traceback.endswith("KeyError: 'a bug in hello'\n")
    assert "KeyError" in caplog.text
    assert "in handle" in caplog.text
    assert "bug in hello" not in caplog.text


async def test_a_record_that_is_no_message_is_set_aside_and_answered(bus: MemoryBus) -> None:
    """Garbage on a topic stops nothing; its header still tells whom to tell."""
    async with (
        tapping(bus, DEAD_LETTERS) as letters,
        tapping(bus, REPLIES) as replies,
        tapping(bus, PROMPTS) as prompts,
        running(make_loop(text_stage(to_prompt), bus)),
    ):
        await published(bus, "turns", b"\xc1garbage", key="s", headers={REPLY_TO: "0", "turn": "t1"})
        await put(bus, make_turn("t2"))
        (letter,), (reply,) = await letters.take(1), await replies.take(1)
        await prompts.take(1)

    assert letter.value == b"\xc1garbage"
    assert (reply.session, reply.turn, reply.status) == ("s", "t1", "failed")


async def test_an_answer_too_large_for_its_topic_is_set_aside_by_name(bus: MemoryBus) -> None:
    """A message that the topic does not take fails its turn, and says which topic and how large."""
    async with MemoryBus(partitions=1, max_message=600) as small:

        async def handle(turn: Turn) -> Stream:
            yield make_prompt(turn.turn, ids=range(1000))

        async with (
            tapping(small, DEAD_LETTERS) as letters,
            tapping(small, REPLIES) as replies,
            running(make_loop(text_stage(handle), small)),
        ):
            await put(small, make_turn("t1"))
            (letter,), (reply,) = await letters.take(1), await replies.take(1)

    assert "'prompts'" in letter.error
    assert reply.status == "failed"


async def test_a_cancelled_turn_stops_in_mid_answer_with_one_last_word(bus: MemoryBus) -> None:
    """After a cancel no token follows; the end tells how many there were."""
    gate = asyncio.Semaphore(3)
    async with tapping(bus, TOKENS) as tokens, running(make_loop(counting_llm(gate), bus)):
        await put(bus, make_prompt("t1"))
        records = [await tokens.record() for _ in range(5)]
        await put(bus, Cancel("s", "t1"))
        records.append(await tokens.record())
        gate.release()
        assert await tokens.silent()

    messages = [TOKENS.decode(record.value) for record in records if CLAIM not in record.headers]
    assert ids_of(messages) == [0, 1, 2]
    assert messages[-1] == Done("s", "t1", "cancelled", Usage(0, 3))


async def test_a_cancel_that_comes_before_its_turn_counts(bus: MemoryBus) -> None:
    """A turn that was cancelled while it waited behind another is not begun."""
    begun: list[str] = []
    gate = asyncio.Event()

    async def handle(turn: Turn) -> Stream:
        begun.append(turn.turn)
        await gate.wait()
        yield make_prompt(turn.turn)

    async with tapping(bus, REPLIES) as replies, running(loop := make_loop(text_stage(handle), bus)):
        await put(bus, make_turn("t1"))
        await put(bus, make_turn("t2"))
        await eventually(lambda: begun)
        await put(bus, Cancel("s", "t2"))
        await eventually(lambda: ("s", "t2") in loop._cancelled)
        gate.set()
        (reply,) = await replies.take(1)

    assert begun == ["t1"]
    assert (reply.turn, reply.status) == ("t2", "cancelled")


async def test_no_work_begins_before_cancels_are_heard(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cancelled as soon as a stage works would else go on to its end."""
    reader, late, begun = bus.reader, asyncio.Event(), list[str]()

    @asynccontextmanager
    async def slow(start: Any) -> AsyncGenerator[Any, None]:
        await late.wait()
        async with reader(start) as found:
            yield found

    async def handle(turn: Turn) -> Stream:
        begun.append(turn.turn)
        yield make_prompt(turn.turn)

    monkeypatch.setattr(bus, "reader", slow)
    task = asyncio.create_task((loop := make_loop(text_stage(handle), bus)).run())
    await put(bus, make_turn("t1"))
    await eventually(lambda: loop.joined)
    await asyncio.sleep(0.2)
    assert begun == []
    late.set()
    await eventually(lambda: begun)
    loop.drain()
    await asyncio.wait_for(task, 5.0)


async def test_a_turn_past_its_deadline_ends(bus: MemoryBus) -> None:
    """A turn that takes longer than its gateway waits is told so, once."""
    gate = asyncio.Semaphore(2)
    async with tapping(bus, TOKENS) as tokens, running(make_loop(counting_llm(gate), bus)):
        await put(bus, make_prompt("t1"), **{DEADLINE: str(time.time() + 0.3)})
        records = [await tokens.record() for _ in range(5)]

    messages = [TOKENS.decode(record.value) for record in records if CLAIM not in record.headers]
    assert messages[-1] == Done("s", "t1", "deadline", Usage(0, 2))


async def test_the_bound_pauses_a_partition_and_lets_it_go_on(bus: MemoryBus) -> None:
    """No more than the span is started while the oldest is unfinished; then all the rest is served."""
    gate, begun = asyncio.Event(), []

    async def handle(turn: Turn) -> Stream:
        begun.append(turn.turn)
        await gate.wait()
        yield make_prompt(turn.turn, turn.session)

    loop = make_loop(text_stage(handle, span=5), bus)
    async with tapping(bus, PROMPTS) as prompts, running(loop):
        for number in range(20):
            session = f"s{number}"
            await published(
                bus, "turns", TURNS.encode(make_turn(f"t{number}", session)), key=session, headers={}, partition=0
            )
        await eventually(lambda: len(begun) == 5)
        await asyncio.sleep(0.3)
        assert len(begun) == 5
        gate.set()
        await prompts.take(20)

    assert loop.metrics.pauses._value.get() >= 1


async def test_work_in_hand_survives_a_rebalance_that_gives_its_partition_back(bus: MemoryBus) -> None:
    """When a second member joins, what stays with the first goes on, and what moves is begun again by the second."""
    gate = asyncio.Event()
    begun: list[tuple[str, str]] = []

    def stage(name: str) -> Stage:
        async def handle(turn: Turn) -> Stream:
            begun.append((name, turn.turn))
            await gate.wait()
            yield make_prompt(f"{turn.turn} by {name}")

        return text_stage(handle)

    async with tapping(bus, PROMPTS) as prompts, running(make_loop(stage("first"), bus)):
        for number in range(2):
            value = TURNS.encode(make_turn(f"t{number}"))
            await published(bus, "turns", value, key="s", headers={}, partition=number)
        await eventually(lambda: len(begun) == 2)
        async with running(make_loop(stage("second"), bus)):
            await eventually(lambda: len(begun) == 3)
            gate.set()
            answers = {prompt.turn for prompt in await prompts.take(2)}
            assert await prompts.silent()

    kept, moved = ("t0", "t1") if begun[2][1] == "t1" else ("t1", "t0")
    assert answers == {f"{kept} by first", f"{moved} by second"}


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_lost_partition_gives_its_slot_to_another(bus: MemoryBus, stubborn: bool) -> None:
    """Work on a partition that moved away ends, however the stage takes it, and what waited for the slot is done."""
    begun: list[str] = []

    async def handle(turn: Turn) -> Stream:
        begun.append(turn.turn)
        if turn.turn == "stuck":
            with suppress(*([asyncio.CancelledError] if stubborn else [])):
                await asyncio.sleep(60)
        yield make_prompt(turn.turn, turn.session)

    loop = make_loop(text_stage(handle, concurrency=1), bus)
    async with tapping(bus, PROMPTS) as prompts, running(loop):
        await published(bus, "turns", TURNS.encode(make_turn("stuck")), key="s", headers={}, partition=0)
        await eventually(lambda: begun)
        for number in range(3):
            value = TURNS.encode(make_turn(f"t{number}", f"s{number}"))
            await published(bus, "turns", value, key=f"s{number}", headers={}, partition=1)
        await asyncio.sleep(0.05)
        assert begun == ["stuck"]
        await loop.assigned([Part("turns", 1)])
        assert {prompt.turn for prompt in await prompts.take(3 + stubborn)} >= {"t0", "t1", "t2"}


async def test_a_new_owner_goes_on_in_mid_answer(bus: MemoryBus) -> None:
    """A worker that is cut off after three tokens is followed by one that begins with the fourth."""
    async with tapping(bus, TOKENS) as tokens:
        cut_off = asyncio.create_task(make_loop(counting_llm(asyncio.Semaphore(3)), bus).run())
        await put(bus, make_prompt("t1"))
        records = [await tokens.record() for _ in range(5)]
        cut_off.cancel()
        await asyncio.wait([cut_off])
        async with running(make_loop(counting_llm(), bus)):
            records += [await tokens.record() for _ in range(10)]
            assert await tokens.silent()

    messages = [TOKENS.decode(record.value) for record in records if CLAIM not in record.headers]
    assert [message.index for message in messages[:-1]] == list(range(10))
    assert messages[-1] == Done("s", "t1", "stop", Usage(3, 10))


async def test_a_new_owner_does_nothing_for_a_turn_that_was_finished(bus: MemoryBus) -> None:
    """A worker that is cut off after the end of an answer, before its commit, is not followed by a second answer."""
    async with tapping(bus, TOKENS) as tokens:
        slow = LoopSettings(commit_every=60.0)
        cut_off = asyncio.create_task(make_loop(counting_llm(), bus, settings=slow).run())
        await put(bus, make_prompt("t1"))
        await put(bus, make_prompt("t2"))
        for _ in range(2 + 22):
            await tokens.record()
        cut_off.cancel()
        await asyncio.wait([cut_off])
        async with running(make_loop(counting_llm(), bus)):
            claims = [await tokens.record() for _ in range(2)]
            assert await tokens.silent()

    assert all(CLAIM in record.headers for record in claims)


async def test_a_former_owner_that_wakes_up_is_not_heard(bus: MemoryBus) -> None:
    """What a paused owner publishes after its successor's claim is dropped by the stage behind it."""
    heard: list[Tokens] = []

    async def fold(stream: Stream) -> Stream:
        heard.extend([message async for message in stream if isinstance(message, Tokens)])
        yield Finished("s", "t1", status="completed")

    stage = Stage("post", TOKENS, folding=fold, last=lambda message: isinstance(message, Done))
    async with tapping(bus, REPLIES) as replies, running(loop := make_loop(stage, bus)):
        part = Part("tokens", 0)
        old, new = await claim(bus, part, "old"), await claim(bus, part, "new")

        async def say(message: Message, epoch: int) -> None:
            headers = {EPOCH: str(epoch), REPLY_TO: "0"}
            await published(bus, "tokens", TOKENS.encode(message), key="s", headers=headers, partition=0)

        await say(Tokens("s", "t1", 0, (1,)), new)
        await say(Tokens("s", "t1", 1, (666,)), old)
        await say(Tokens("s", "t1", 1, (2,)), new)
        await say(Done("s", "t1", "stop"), old)
        await say(Done("s", "t1", "stop"), new)
        await replies.take(1)

    assert ids_of(heard) == [1, 2]
    assert loop.metrics.fenced._value.get() == 4


async def test_a_turn_that_comes_twice_is_answered_once(bus: MemoryBus) -> None:
    """A repeated record of a finished turn (a stage before died before its commit) is dropped."""
    async with tapping(bus, PROMPTS) as prompts, running(make_loop(text_stage(to_prompt), bus)):
        await put(bus, make_turn("t1"))
        await prompts.take(1)
        await put(bus, make_turn("t1"))
        assert await prompts.silent()


async def test_a_folding_stage_commits_nothing_of_an_unfinished_turn(bus: MemoryBus) -> None:
    """A new owner of a half-read turn reads it from its first message."""

    async def fold(stream: Stream) -> Stream:
        at = 0
        async for message in stream:
            if isinstance(message, Tokens):
                yield Delta("s", message.turn, at, "x" * len(message.ids), message.index + 1)
                at += len(message.ids)
        yield Finished("s", "t1", status="completed", length=at)

    stage = Stage("post", TOKENS, folding=fold, last=lambda message: isinstance(message, Done), cancellable=False)
    async with tapping(bus, REPLIES) as replies:
        cut_off = asyncio.create_task(make_loop(stage, bus).run())
        for index in range(3):
            await put(bus, Tokens("s", "t1", index, (index,)))
        assert [delta.at for delta in await replies.take(3)] == [0, 1, 2]
        await asyncio.sleep(0.1)
        cut_off.cancel()
        await asyncio.wait([cut_off])
        async with running(make_loop(stage, bus)):
            await put(bus, Done("s", "t1", "stop"))
            again = await replies.take(4)

    assert [delta.at for delta in again[:3]] == [0, 1, 2]
    assert again[3].length == 3


async def test_a_chain_is_one_stage_with_function_calls_for_hops(bus: MemoryBus) -> None:
    """Text, LLM and postprocess chained read turns and reply; nothing stands on the topics between."""

    async def fold(stream: Stream) -> Stream:
        text = ""
        async for message in stream:
            if isinstance(message, Tokens):
                yield Delta(message.session, message.turn, len(text), str(message.index), message.index + 1)
                text += str(message.index)
        yield Finished("s", "t1", status="completed", length=len(text))

    post = Stage("post", TOKENS, folding=fold, last=lambda message: isinstance(message, Done))
    stage = chain(text_stage(to_prompt), counting_llm(), post)
    async with tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
        await put(bus, make_turn("t1"))
        messages = await replies.take(11)

    assert "".join(message.text for message in messages[:-1]) == "0123456789"
    assert messages[-1].length == 10
    assert stage.name == "text+llm+post"
    assert await bus.end(Part("prompts", 0)) == await bus.end(Part("prompts", 1)) == 0


async def test_a_drain_finishes_what_is_in_hand_and_leaves_the_rest(bus: MemoryBus) -> None:
    """A stopping worker ends the turn it is at, does not begin another, and commits exactly that."""
    gate, begun = asyncio.Event(), []

    async def handle(turn: Turn) -> Stream:
        begun.append(turn.turn)
        await gate.wait()
        yield make_prompt(turn.turn)

    loop = make_loop(text_stage(handle, concurrency=1), bus)
    async with tapping(bus, PROMPTS) as prompts:
        task = asyncio.create_task(loop.run())
        await put(bus, make_turn("t1"))
        await put(bus, make_turn("t2"))
        await eventually(lambda: begun)
        loop.drain()
        await asyncio.sleep(0.05)
        assert not task.done()
        gate.set()
        await asyncio.wait_for(task, 5)
        await prompts.take(1)
        assert begun == ["t1"]
        async with running(make_loop(text_stage(to_prompt), bus)):
            (prompt,) = await prompts.take(1)

    assert prompt.turn == "t2"


async def test_a_drain_does_not_wait_for_ever(bus: MemoryBus) -> None:
    """A turn that takes longer than a drain may is given up uncommitted, for the next worker."""

    async def handle(turn: Turn) -> Stream:
        await asyncio.sleep(60)
        yield make_prompt(turn.turn)

    loop = make_loop(text_stage(handle), bus, settings=LoopSettings(drain=0.1))
    async with tapping(bus, PROMPTS) as prompts:
        task = asyncio.create_task(loop.run())
        await put(bus, make_turn("t1"))
        await eventually(lambda: any(holding.jobs for holding in loop._holdings.values()))
        loop.drain()
        await asyncio.wait_for(task, 5)
        async with running(make_loop(text_stage(to_prompt), bus)):
            await prompts.take(1)


async def test_a_journal_with_another_number_of_partitions_stops_the_start() -> None:
    """A takeover could not find what was published, so the loop says which two topics differ."""
    uneven = [Topic("tokens", Tokens, Done, partitions=3) if topic is TOKENS else topic for topic in ROUTE]
    async with MemoryBus(uneven, partitions=2) as bus:
        with pytest.raises(TopicMismatch, match="'prompts' has 2 partitions and 'tokens' has 3"):
            await Loop(counting_llm(), bus).run()


async def test_an_unreadable_cancel_is_skipped(bus: MemoryBus) -> None:
    """Garbage on the control topic does not deafen the loop."""
    gate = asyncio.Semaphore(1)
    async with tapping(bus, TOKENS) as tokens, running(make_loop(counting_llm(gate), bus)):
        await put(bus, make_prompt("t1"))
        for _ in range(3):
            await tokens.record()
        await published(bus, CONTROL.name, b"\xc1", key="", headers={}, partition=0)
        await put(bus, Cancel("s", "t1"))
        (done,) = await tokens.take(1)

    assert done.reason == "cancelled"


@pytest.mark.parametrize(
    "headers",
    [{REPLY_TO: "99"}, {REPLY_TO: "x"}, {DEADLINE: "nan"}, {DEADLINE: "soon"}, {EPOCH: "first"}, {REPLY_TO: "²"}],
    ids=str,
)
async def test_headers_that_make_no_sense_stop_nothing(bus: MemoryBus, headers: dict[str, str]) -> None:
    """A foreign producer's odd headers cost at most its own answer."""

    async def handle(turn: Turn) -> Stream:
        if turn.turn == "odd":
            raise PromptTooLong(got=9, limit=5)
        yield make_prompt(turn.turn)

    async with tapping(bus, PROMPTS) as prompts, running(make_loop(text_stage(handle), bus)):
        await put(bus, make_turn("odd"), **headers)
        await put(bus, make_turn("t2"))
        (prompt,) = await prompts.take(1)

    assert prompt.turn == "t2"


class Unsure(MemoryBus):
    """A bus that loses what it was handed over, or lands it and loses the word of that, for the first few records.

    As with an idempotent producer, nothing lands behind a lost record until its publisher has heard of the loss.
    """

    def __init__(self, topic: Topic, fates: str) -> None:
        super().__init__(partitions=1)
        self._topic_name = topic.name
        self._fates = list(fates)
        self._losses = 0

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> asyncio.Future[int]:
        """By the next fate of a message for the topic: y lands, n is lost, s lands and says it did not."""
        fate = "y"
        if topic == self._topic_name and CLAIM not in headers:
            fate = "n" if self._losses else self._fates.pop(0) if self._fates else "y"
        failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if fate == "n":
            self._losses += 1
        else:
            delivery = await super().publish(topic, value, key=key, headers=headers, partition=partition)
            if fate == "y":
                return delivery
        asyncio.get_running_loop().call_later(0.01, self._fail, failed, fate)
        return failed

    def _fail(self, delivery: asyncio.Future[int], fate: str) -> None:
        self._losses -= fate == "n"
        if not delivery.done():
            delivery.set_exception(BusUnavailable("here", "a test says so"))


@pytest.mark.parametrize("fates", ["n", "s", "yn", "ns", "nn", "ynyn", "snsnsn", "yyyyn"])
async def test_what_does_not_reach_the_log_is_said_again(fates: str) -> None:
    """Whichever deliveries fail, every turn of the key is answered in the end, and nothing is committed before."""
    async with Unsure(PROMPTS, fates) as bus, tapping(bus, PROMPTS) as prompts:
        loop = make_loop(text_stage(to_prompt, retry=Retry(first=0.01)), bus)
        async with running(loop):
            for number in range(5):
                await put(bus, make_turn(f"t{number}"))
            seen: list[str] = []
            while len(set(seen)) < 5:
                seen += [prompt.turn for prompt in await prompts.take(1)]
            await eventually(lambda: all(not holding.window.span for holding in loop._holdings.values()))
            assert not any(holding.lanes or holding.jobs for holding in loop._holdings.values())


class Refusing(MemoryBus):
    """A bus that takes nothing for a topic, a few times, and says so at once."""

    def __init__(self, topic: Topic, times: int) -> None:
        super().__init__(partitions=1)
        self._topic_name = topic.name
        self._times = times

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> asyncio.Future[int]:
        """Not now, or as usual."""
        if topic == self._topic_name and self._times:
            self._times -= 1
            raise BusUnavailable("here", "a test says so")
        return await super().publish(topic, value, key=key, headers=headers, partition=partition)


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_what_the_log_does_not_take_is_said_again(times: int) -> None:
    """A turn of which nothing could be handed over has not been answered, although nothing of it is unsure."""
    async with (
        Refusing(PROMPTS, times) as bus,
        tapping(bus, PROMPTS) as prompts,
        running(make_loop(text_stage(to_prompt, retry=Retry(first=0.01)), bus)),
    ):
        for number in range(3):
            await put(bus, make_turn(f"t{number}"))
        assert [prompt.turn for prompt in await prompts.take(3)] == ["t0", "t1", "t2"]


@pytest.mark.parametrize("fates", ["n", "ys", "yyn", "yysn", "yyyynyyn"])
async def test_an_answer_has_no_gap_where_a_delivery_failed(fates: str) -> None:
    """Tokens whose delivery is not sure are said again under their numbers, in the order of their numbers."""
    messages: list[Message] = []
    async with (
        Unsure(TOKENS, fates) as bus,
        tapping(bus, TOKENS) as tokens,
        running(make_loop(counting_llm(retry=Retry(first=0.01)), bus)),
    ):
        await put(bus, make_prompt("t1"))
        while not (messages and isinstance(messages[-1], Done)):
            record = await tokens.record()
            if CLAIM not in record.headers:
                messages.append(TOKENS.decode(record.value))

    assert ids_of(messages) == list(range(10))
