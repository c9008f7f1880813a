"""Reading the log of a run: tokens by their number, former owners' left out, and every end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from apps.chaos.audit import Logged, audit
from pipeline.headers import CLAIM, EPOCH
from pipeline.memory import MemoryBus
from pipeline.messages import Delta, Done, Finished, Message, Tokens, Told, Turn, Usage, Utterance
from pipeline.topics import REPLIES, SPEECH_OUT, TOKENS, TURNS, Topic
from pipeline.voice import Sentence, Spoken

ID = ("sess_1", "resp_1")


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    """An empty bus."""
    async with MemoryBus() as bus:
        yield bus


async def say(bus: MemoryBus, topic: Topic, message: Message, epoch: int | None = None) -> None:
    """Put a message into the first partition."""
    headers = {} if epoch is None else {EPOCH: str(epoch)}
    await (await bus.publish(topic.name, topic.encode(message), key="k", headers=headers, partition=0))


async def claim(bus: MemoryBus) -> int:
    """Take the partition of tokens over."""
    return await (await bus.publish(TOKENS.name, b"", key="", headers={CLAIM: "llm"}, partition=0))


async def logged(bus: MemoryBus) -> Logged:
    """What is found of the one turn."""
    return (await audit(bus)).turns[ID]


async def test_a_turn_is_found_with_all_that_stands_of_it(bus: MemoryBus) -> None:
    """Its request, its tokens, its acknowledgement, its text and its end."""
    await say(bus, TURNS, Turn(*ID, conversation=(Utterance("user", "Hello"),)))
    await say(bus, TOKENS, Tokens(*ID, index=0, ids=(7, 8)), await claim(bus))
    await say(bus, TOKENS, Done(*ID, reason="stop", usage=Usage(output_tokens=2)), 0)
    await say(bus, REPLIES, Told(*ID, events=({"type": "response.created"},)))
    await say(bus, REPLIES, Delta(*ID, at=0, text="Hi!", index=2))
    await say(bus, REPLIES, Finished(*ID, status="completed", length=3))

    found = await logged(bus)

    assert (found.part, found.asked, found.tokens, found.done) == (0, 1, {0: 7, 1: 8}, [2])
    assert (found.acknowledged, found.missing, found.holes, found.characters) == (True, 0, 0, 3)
    assert [end.status for end in found.finished] == ["completed"]


async def test_what_a_takeover_says_again_is_a_copy_and_no_loss(bus: MemoryBus) -> None:
    """Tokens count by their number; two different ones under one number are told."""
    await say(bus, TOKENS, Tokens(*ID, index=0, ids=(7, 8)), await claim(bus))
    await say(bus, TOKENS, Tokens(*ID, index=1, ids=(8, 9)), await claim(bus))
    assert ((found := await logged(bus)).copies, found.changed, found.tokens) == (1, [], {0: 7, 1: 8, 2: 9})

    await say(bus, TOKENS, Tokens(*ID, index=2, ids=(5,)))
    assert (await logged(bus)).changed == [2]


async def test_a_former_owner_does_not_count(bus: MemoryBus) -> None:
    """What it says behind its successor's claim is left out, and counted."""
    former = await claim(bus)
    await say(bus, TOKENS, Tokens(*ID, index=0, ids=(7,)), former)
    await claim(bus)
    await say(bus, TOKENS, Tokens(*ID, index=1, ids=(6,)), former)
    found = await audit(bus)
    assert (found.turns[ID].tokens, found.fenced) == ({0: 7}, 1)
    assert [part for part, _ in found.claims] == [0, 0]


async def test_each_owner_is_told_with_its_claim(bus: MemoryBus) -> None:
    """When it claimed the partition, and when it first spoke in the turn."""
    for index in range(2):
        await say(bus, TOKENS, Tokens(*ID, index=index, ids=(7,)), await claim(bus))
    first, second = (await logged(bus)).owners
    assert 0 < first.claimed <= first.spoke <= second.claimed <= second.spoke


async def test_tokens_that_the_end_counts_and_nobody_finds_are_missing(bus: MemoryBus) -> None:
    """So are characters before a piece of text."""
    await say(bus, TOKENS, Tokens(*ID, index=0, ids=(7,)))
    await say(bus, TOKENS, Done(*ID, reason="stop", usage=Usage(output_tokens=3)))
    await say(bus, REPLIES, Delta(*ID, at=2, text="lo", index=2))
    assert ((found := await logged(bus)).missing, found.holes) == (2, 1)


async def test_a_spoken_answer_is_found_with_its_sentences_and_samples(bus: MemoryBus) -> None:
    """What a takeover says again is counted; a sentence that was cut otherwise, and a hole, are told."""
    for sentence in (Sentence(*ID, 0, 0, "Hi."), Sentence(*ID, 1, 3, "", last=True)):
        await say(bus, SPEECH_OUT, sentence)
    for piece in (Spoken(*ID, 0, b"abcd"), Spoken(*ID, 0, b"abcdef"), Spoken(*ID, 3, last=True)):
        await say(bus, REPLIES, piece)
    found = (await audit(bus)).said[ID]
    assert (list(found.sentences), found.samples, found.copies, found.holes, found.changed) == ([0, 1], 3, 2, 0, [])

    await say(bus, SPEECH_OUT, Sentence(*ID, 0, 0, "Hi. Oh."))
    await say(bus, REPLIES, Spoken(*ID, 5, b"ab"))
    found = (await audit(bus)).said[ID]
    assert (found.changed, found.holes) == ([0], 1)
