"""What a retry of a dead letter does to the stages, and does not do to a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from apps.dead_letters import Id, Survey, fetch, survey
from apps.retry import CannotRetry, NotMarked, Outcome, retry_all
from pipeline.bus import Bus
from pipeline.errors import BusUnavailable
from pipeline.headers import DEADLINE as ENDS_AT
from pipeline.headers import REPLY_TO, RETRY, TENANT, TRACE, TURN
from pipeline.memory import MemoryBus
from pipeline.messages import Done, Finished, Tokens, Turn, Usage
from pipeline.stage import Stage, Stream
from pipeline.topics import DEAD_LETTERS, PROMPTS, REPLIES, TOKENS, TURNS
from tests.apps.gateway.harness import connected, echo, gateway
from tests.apps.letters import a_letter, post
from tests.pipeline.fakes import eventually, make_loop, make_prompt, make_turn, published, put, running, tapping

FAST = 1000.0


@pytest.fixture
async def bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus with the whole route."""
    async with MemoryBus(partitions=2) as bus:
        yield bus


class Fragile:
    """A text stage with a bug that can be mended."""

    def __init__(self) -> None:
        self.broken = True
        self.stage = Stage("text", TURNS, each=self)

    async def __call__(self, turn: Turn) -> Stream:
        """Give the turn's prompt, once mended."""
        if self.broken:
            raise ValueError(f"cannot count {turn.conversation[-1].text!r}")
        yield make_prompt(turn.turn, turn.session)


async def all_retried(bus: Bus, found: Survey, **options: Any) -> list[Outcome]:
    """Retry all that was found."""
    options = {"per_s": FAST, "stop": asyncio.Event(), **options}
    return [outcome async for outcome in retry_all(bus, found.letters, found, **options)]


async def test_a_retry_runs_in_the_very_worker_that_had_given_up(bus: MemoryBus) -> None:
    """It is a turn of its own, with the same key and headers, but for a deadline that is long over."""
    fragile = Fragile()
    sent = {TENANT: "acme", TRACE: "00-1-2-01", ENDS_AT: f"{time.time() + 0.3:.3f}"}
    async with tapping(bus, DEAD_LETTERS) as letters, tapping(bus, PROMPTS) as prompts, tapping(bus, TURNS) as turns:
        async with running(make_loop(fragile.stage, bus)):
            await put(bus, make_turn("t1"), **sent)
            await letters.record()
            fragile.broken = False
            await asyncio.sleep(0.4)
            (outcome,) = await all_retried(bus, await survey(bus))
            prompt = await prompts.record()
        first, again = await turns.record(), await turns.record()

    assert (outcome.turn, outcome.problem) == ("t1.retry-1", None)
    assert PROMPTS.decode(prompt.value).turn == "t1.retry-1"
    assert (again.key, again.part) == (first.key, first.part)
    assert TURNS.decode(again.value) == msgspec.structs.replace(make_turn("t1"), turn="t1.retry-1")
    expected = {REPLY_TO: "0", TURN: "t1.retry-1", TENANT: "acme", TRACE: "00-1-2-01", RETRY: "1"}
    assert (again.headers, prompt.headers) == (expected, expected)


async def test_a_retry_is_noted_and_the_letter_stays(bus: MemoryBus) -> None:
    """Whoever lists the letters sees when it was retried, and under which name."""
    await post(bus, a_letter())
    await all_retried(bus, await survey(bus))
    found = await survey(bus)
    (note,) = found.notes[Id(0, 0)]
    assert (note.attempt, note.turn) == (1, "t.retry-1")
    assert abs(note.when - time.time() * 1000) < 20_000
    assert [letter.id for letter in found.letters] == [Id(0, 0)]
    letter = await fetch(bus, Id(0, 0))
    assert letter is not None
    assert letter.dead == a_letter()


async def test_what_fails_again_is_a_new_letter_with_its_count(bus: MemoryBus) -> None:
    """Every further retry, of whichever of the letters, has a name of its own."""
    fragile = Fragile()
    async with tapping(bus, DEAD_LETTERS) as letters, running(make_loop(fragile.stage, bus)):
        await put(bus, make_turn("t1"))
        await letters.record()
        await all_retried(bus, await survey(bus))
        await eventually_letters(bus, 2)
        await all_retried(bus, await survey(bus))
        await eventually_letters(bus, 4)

    found = await survey(bus)
    assert [(letter.dead.turn, letter.attempt) for letter in found.letters] == [
        ("t1", 0),
        ("t1.retry-1", 1),
        ("t1.retry-2", 2),
        ("t1.retry-3", 3),
    ]


async def eventually_letters(bus: Bus, count: int) -> None:
    """Wait until so many letters are there."""
    async with asyncio.timeout(20):
        while (await survey(bus)).total < count:  # noqa: ASYNC110 - each time it is asked anew
            await asyncio.sleep(0.02)


async def test_a_client_hears_one_end_of_its_turn() -> None:
    """It was told `failed`; the answer of the retry stands in the log, and is nobody's."""
    broken = True

    async def answer(turn: Turn) -> Stream:
        if broken:
            raise ZeroDivisionError
        for message in echo(turn):
            yield message

    bus = MemoryBus()
    stage = Stage(name="all", reads=TURNS, each=answer)
    async with (
        tapping(bus, REPLIES) as replies,
        gateway(bus=bus, answer=lambda turn: ()) as server,
        running(make_loop(stage, bus)),
        connected(server) as client,
    ):
        response = await client.ask("hello there")
        broken = False
        (outcome,) = await all_retried(bus, await survey(bus))
        ends: list[Finished] = []
        while len(ends) < 2:
            ends += [message for message in await replies.take(1) if isinstance(message, Finished)]
        await eventually(lambda: server.count("records_skipped_total", why="turn is over") >= 2)
        again = await client.ask("and now")

    assert response["status"] == "failed"
    assert [(end.turn, end.status) for end in ends] == [(response["id"], "failed"), (outcome.turn, "completed")]
    assert again["status"] == "completed"  # the client checks that nothing else came in between


async def test_what_cannot_be_read_is_sent_as_it_is(bus: MemoryBus) -> None:
    """Byte for byte, under the name in its header: a worker that can read it knows nothing of it yet."""
    await post(bus, a_letter(value=b"\xc1 from tomorrow", error="UndecodableMessage: x"))
    (outcome,) = await all_retried(bus, await survey(bus))
    async with tapping(bus, TURNS) as turns:
        record = await turns.record()
    assert (record.value, outcome.turn) == (b"\xc1 from tomorrow", "t")
    assert (record.headers[TURN], record.headers[RETRY]) == ("t", "1")


async def test_a_turn_without_a_header_has_its_name_from_the_message(bus: MemoryBus) -> None:
    """Who writes straight to Kafka sets no headers."""
    await post(bus, a_letter("", headers={}, value=TURNS.encode(make_turn("t9"))))
    found = await survey(bus)
    (outcome,) = await all_retried(bus, found)
    async with tapping(bus, TURNS) as turns:
        record = await turns.record()
    assert (found.letters[0].turn, outcome.turn) == ("t9", "t9.retry-1")
    assert record.headers == {TURN: "t9.retry-1", RETRY: "1"}


async def test_what_only_a_newer_version_knows_survives(bus: MemoryBus) -> None:
    """A retry changes the turn's name in a message, and nothing else."""
    newer = {"type": "turn", "session": "s", "turn": "t", "conversation": [], "mood": {"of": ["tomorrow", 1.5]}}
    await post(bus, a_letter(value=msgspec.msgpack.encode(newer)))
    await all_retried(bus, await survey(bus))
    async with tapping(bus, TURNS) as turns:
        record = await turns.record()
    assert msgspec.msgpack.decode(record.value) == {**newer, "turn": "t.retry-1"}


async def test_a_record_too_large_for_its_letter_is_taken_from_its_topic(bus: MemoryBus) -> None:
    """As long as it is there; then it is said that it is gone, and nothing is noted."""
    offset = await put(bus, make_turn("t"), key="s")
    async with tapping(bus, TURNS) as turns:
        part = (await turns.record()).part.number
        await post(bus, a_letter(value=b"", partition=part, offset=offset))
        await post(bus, a_letter(value=b"", partition=part, offset=offset + 10))
        there, gone = await all_retried(bus, await survey(bus))
        assert TURNS.decode((await turns.record()).value).turn == "t.retry-1"
    assert there.problem is None
    assert isinstance(gone.problem, CannotRetry)
    assert "no longer in 'turns'" in str(gone.problem)
    assert list((await survey(bus)).notes) == [Id(0, 0)]


async def test_an_answer_in_pieces_is_sent_again_whole(bus: MemoryBus) -> None:
    """The letter holds the first of a turn's records; the stage needs all of them, and none of other turns."""
    broken = True

    async def fold(messages: Stream) -> Stream:
        turns: list[str] = []
        async for message in messages:
            turns.append(message.turn)
            if broken and len(turns) == 2:
                raise ValueError("a bug")
        yield Finished("s", turns[0], "completed", length=len(turns))

    stage = Stage("postprocess", TOKENS, folding=fold, last=lambda message: isinstance(message, Done))
    async with tapping(bus, DEAD_LETTERS) as letters, tapping(bus, REPLIES) as replies, running(make_loop(stage, bus)):
        for index in range(3):
            await put(bus, Tokens("s", "t", index, (index,)))
            await put(bus, Tokens("s", "other", index, (index,)))
        await put(bus, Done("s", "t", "stop", Usage(1, 3)))
        await letters.take(2)
        broken = False
        found = await survey(bus)
        found.letters = [letter for letter in found.letters if letter.dead.turn == "t"]
        (outcome,) = await all_retried(bus, found)
        ends = [end for end in await replies.take(3) if end.status == "completed"]

    assert outcome.turn == "t.retry-1"
    assert [(end.turn, end.length) for end in ends] == [("t.retry-1", 4)]


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        ({"topic": "tokens", "value": TOKENS.encode(Tokens("s", "t", 0, (1,)))}, "its end is not in 'tokens'"),
        ({"topic": "tokens", "value": b"\xc1", "offset": 1}, "retry the letter of its turn"),
        ({"topic": "tokens", "value": b"another", "offset": 1}, "no longer in 'tokens'"),
        ({"topic": "replies"}, "no stage reads topic 'replies'"),
        ({"topic": "of-another-version"}, "no stage reads topic 'of-another-version'"),
    ],
)
async def test_what_would_do_no_good_is_not_sent(bus: MemoryBus, letter: dict[str, Any], why: str) -> None:
    """Half an answer, a piece of one, or what no stage reads: it says so, and sends and notes nothing."""
    await published(bus, "tokens", TOKENS.encode(Tokens("s", "t", 0, (1,))), key="s", headers={}, partition=0)
    await published(bus, "tokens", b"\xc1", key="s", headers={}, partition=0)
    await post(bus, a_letter(**{"offset": 0, **letter}))
    (outcome,) = await all_retried(bus, await survey(bus))
    assert isinstance(outcome.problem, CannotRetry)
    assert why in str(outcome.problem)
    assert not (await survey(bus)).notes


async def test_one_that_cannot_be_sent_does_not_keep_the_others(bus: MemoryBus) -> None:
    """Each has its own outcome, in the order of the list."""
    await post(bus, a_letter("t1"))
    await post(bus, a_letter("t2", topic="replies"))
    await post(bus, a_letter("t3"))
    outcomes = await all_retried(bus, await survey(bus))
    assert [(outcome.turn, outcome.problem is None) for outcome in outcomes] == [
        ("t1.retry-1", True),
        ("", False),
        ("t3.retry-1", True),
    ]


async def test_a_stop_ends_it_between_two_letters(bus: MemoryBus) -> None:
    """What was sent is noted, and the rest waits for the next time; nobody waits for the pace."""
    for number in range(3):
        await post(bus, a_letter(f"t{number}"))
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    outcomes = await asyncio.wait_for(all_retried(bus, await survey(bus), per_s=0.01, stop=stop), 10)
    assert [outcome.turn for outcome in outcomes] == ["t0.retry-1"]
    assert list((await survey(bus)).notes) == [Id(0, 0)]


async def test_others_are_left_room(bus: MemoryBus) -> None:
    """No more are sent in a second than are asked for."""
    for number in range(5):
        await post(bus, a_letter(f"t{number}"))
    begun = time.perf_counter()
    await all_retried(bus, await survey(bus), per_s=20.0)
    assert time.perf_counter() - begun >= 4 / 20


@pytest.mark.parametrize("topic", ["turns", DEAD_LETTERS.name])
async def test_a_bus_that_is_lost_loses_no_letter(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    """Lost before the record is sent, all ends; lost before the note, it says that there is none."""
    await post(bus, a_letter())
    found, real = await survey(bus), bus.publish

    async def lost(to: str, value: bytes, **options: Any) -> asyncio.Future[int]:
        if to == topic:
            raise BusUnavailable("here", "gone")
        return await real(to, value, **options)

    monkeypatch.setattr(bus, "publish", lost)
    if topic == "turns":
        with pytest.raises(BusUnavailable):
            await all_retried(bus, found)
    else:
        (outcome,) = await all_retried(bus, found)
        assert isinstance(outcome.problem, NotMarked)
    assert len((await survey(bus)).letters) == 1
    assert not (await survey(bus)).notes
