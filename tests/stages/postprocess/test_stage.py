"""Tokens become text that a client can be told: whole characters, once, in order, cut at stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PenstockError
from pipeline.messages import Delta, Done, Finished, FinishReason, Likelihood, Message, Tokens, Usage
from pipeline.stage import LATE, Stream
from pipeline.topics import TOKENS
from stages.detokenize import Vocabulary
from stages.postprocess.stage import PostprocessStage, postprocess_stage
from tests.stages import models

TOKENIZER = models.byte_level()
VOCABULARY = Vocabulary(TOKENIZER)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def ids_of(text: str) -> list[int]:
    """The ids of `text`."""
    return list(TOKENIZER.encode(text, add_special_tokens=False))


def run(ids: Sequence[int], index: int = 0, stop: tuple[str, ...] = ()) -> Tokens:
    """A run of tokens."""
    return Tokens("s", "t", index=index, ids=tuple(ids), stop=stop)


def done(tokens: int, reason: FinishReason = "stop") -> Done:
    """The end after so many tokens."""
    return Done("s", "t", reason=reason, usage=Usage(prompt_tokens=3, output_tokens=tokens))


async def told(*messages: Message) -> list[Any]:
    """What the stage tells when it gets `messages`."""

    async def source() -> Stream:
        for message in messages:
            yield message

    async with aclosing(PostprocessStage(VOCABULARY)(source())) as stream:
        return [message async for message in stream]


def text_of(messages: list[Any]) -> str:
    """The text of the deltas, each of which begins where the one before ended."""
    text = ""
    for delta in messages:
        if isinstance(delta, Delta):
            assert delta.at == len(text)
            assert delta.text
            text += delta.text
    return text


def cut(ids: Sequence[int], data: st.DataObject, stop: tuple[str, ...] = ()) -> list[Message]:
    """`ids` in runs, some of them repeated in part, as after a takeover."""
    messages: list[Message] = []
    at = 0
    while at < len(ids):
        end = data.draw(st.integers(at + 1, len(ids)))
        again = data.draw(st.integers(0, at)) if messages else 0
        messages.append(run(ids[again:end], again, stop if not messages else ()))
        at = end
    return messages


@given(text=TEXT, data=st.data())
async def test_text_does_not_depend_on_the_runs(text: str, data: st.DataObject) -> None:
    """However tokens are cut into runs, and whichever come twice, the text is the same, told once."""
    ids = ids_of(text)

    *deltas, last = await told(*cut(ids, data), done(len(ids)))

    assert text_of(deltas) == text
    assert last == Finished("s", "t", status="completed", reason="stop", usage=done(len(ids)).usage, length=len(text))


@given(text=st.text("abé😀\n", max_size=20), stop=st.text("abé😀\n", min_size=1, max_size=3), data=st.data())
async def test_stop_string_cuts_the_text(text: str, stop: str, data: st.DataObject) -> None:
    """Nothing of a stop string or after it is told, in whatever runs it came; what only looked like one is told."""
    ids = ids_of(text)

    *deltas, last = await told(*cut(ids, data, (stop,)), done(len(ids), "length"))

    before, found, _ = text.partition(stop)
    assert text_of(deltas) == before
    assert last.length == len(before)
    assert last.status == ("completed" if found else "incomplete")


@given(text=TEXT, data=st.data())
async def test_index_names_the_first_token_not_wholly_told(text: str, data: st.DataObject) -> None:
    """The tokens before a delta's index make up no more than the text so far, and the one at it goes beyond."""
    ids = ids_of(text)
    so_far = ""
    for delta in await told(*cut(ids, data), done(len(ids))):
        if isinstance(delta, Delta):
            so_far += delta.text
            size = len(so_far.encode())
            assert len(b"".join(VOCABULARY.bytes_of(token) for token in ids[: delta.index])) <= size
            assert len(
                b"".join(VOCABULARY.bytes_of(token) for token in ids[: delta.index + 1])
            ) > size or delta.index == len(ids)


async def test_half_a_character_waits_for_the_rest() -> None:
    """Of a character of many tokens nothing is told before its last one; an answer cut off within it ends before it."""
    ids = ids_of("👩")
    assert len(ids) > 1

    assert text_of(await told(run(ids), done(len(ids)))) == "👩"
    assert text_of(await told(run(ids[:-1]), done(len(ids) - 1, "length"))) == ""


@pytest.mark.parametrize(
    ("reason", "status"),
    [("stop", "completed"), ("length", "incomplete"), ("cancelled", "cancelled"), ("deadline", "failed")],
)
async def test_how_an_answer_ended(reason: FinishReason, status: str) -> None:
    """Each way to end has its status, and keeps its reason."""
    ids = ids_of("Hello")

    *_, last = await told(run(ids), done(len(ids), reason))

    assert (last.status, last.reason, last.length) == (status, reason, 5)
    assert last.problem == (LATE if reason == "deadline" else None)


async def test_answer_without_tokens() -> None:
    """An answer may be empty; it ends all the same."""
    assert await told(done(0)) == [Finished("s", "t", status="completed", reason="stop", usage=done(0).usage, length=0)]


@pytest.mark.parametrize("messages", [[], [run([7], index=3), done(4)], [done(4)]])
async def test_turn_that_a_former_owner_finished(messages: list[Message]) -> None:
    """When only the end of a turn is read again, it was told before: nothing is said."""
    assert await told(*messages) == []


@pytest.mark.parametrize("messages", [[run([7]), run([8], index=2)], [run([7]), done(2)]])
async def test_missing_tokens_are_an_error(messages: list[Message]) -> None:
    """A gap is never papered over."""
    with pytest.raises(PenstockError, match="tokens 1 to 1 are missing"):
        await told(*messages)


def test_stage_ends_a_turn_with_its_done() -> None:
    """The loop learns from the stage where a turn ends."""
    stage = postprocess_stage(VOCABULARY)

    assert (stage.name, stage.reads) == ("postprocess", TOKENS)
    assert stage.last(done(0))
    assert not stage.last(run([7]))


@given(text=TEXT, stop=st.text("ab ", min_size=1, max_size=2), data=st.data())
async def test_likelihoods_come_once_with_their_text(text: str, stop: str, data: st.DataObject) -> None:
    """In whatever runs, each token that is wholly told has its likelihoods once, in order, spelt in bytes."""
    ids = ids_of(text)
    likelihoods = [Likelihood(token, -float(n), (Likelihood(token, -float(n)),)) for n, token in enumerate(ids)]
    messages: list[Message] = [
        Tokens("s", "t", one.index, one.ids, one.stop, tuple(likelihoods[one.index : one.index + len(one.ids)]))
        for one in cut(ids, data, (stop,))
        if isinstance(one, Tokens)
    ]

    *deltas, _ = await told(*messages, done(len(ids)))

    said = [one for delta in deltas for one in delta.likelihoods]
    assert [one.logprob for one in said] == [-float(n) for n in range(len(said))]
    assert len(said) == (deltas[-1].index if deltas else 0)
    assert all(one.data == one.top[0].data == VOCABULARY.bytes_of(one.id) for one in said)
    for delta in deltas:
        assert delta.likelihoods == () or delta.likelihoods[-1].logprob == -float(delta.index - 1)
