"""An answer that is to be spoken goes to the speak stage in sentences, beside its text, and always has a last one."""

from __future__ import annotations

from contextlib import aclosing
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.messages import Delta, Done, Finished, FinishReason, Message, Tokens, Usage, Voice
from pipeline.stage import Stream
from pipeline.voice import Sentence
from stages.detokenize import Vocabulary
from stages.postprocess.stage import PostprocessStage
from tests.stages import models

TOKENIZER = models.byte_level()
VOCABULARY = Vocabulary(TOKENIZER)
VOICE = Voice("alloy", 1.25, "pcmu")
TEXT = "Sure, I can help you, of course. It costs $3.50. Bye"


def tokens(text: str, index: int = 0, stop: tuple[str, ...] = (), voice: Voice | None = VOICE) -> Tokens:
    """A run of the tokens of `text`."""
    ids = tuple(TOKENIZER.encode(text, add_special_tokens=False))
    return Tokens("s", "t", index=index, ids=ids, stop=stop, voice=voice)


def portions(*texts: str) -> list[Tokens]:
    """The tokens of `texts`, which follow each other, the first with the voice."""
    runs: list[Tokens] = []
    for text in texts:
        index = sum(len(run.ids) for run in runs)
        runs.append(tokens(text, index, voice=None if runs else VOICE))
    return runs


def done(run: Tokens | None, reason: FinishReason = "stop", voice: Voice | None = None) -> Done:
    """The end after `run`."""
    length = len(run.ids) if run else 0
    return Done("s", "t", reason=reason, usage=Usage(output_tokens=length), voice=voice)


async def told(*messages: Message, start: float = 100.0) -> list[Any]:
    """What the stage tells when it gets `messages`; its clock goes a second further with each look."""
    clock = count(start)

    async def source() -> Stream:
        for message in messages:
            yield message

    stage = PostprocessStage(VOCABULARY, clock=lambda: next(clock))
    async with aclosing(stage(source())) as stream:
        return [message async for message in stream]


def script(messages: list[Any]) -> list[tuple[int, int, str, bool]]:
    """The sentences of `messages`, each as its index, place and text, and whether it is the last."""
    return [(one.index, one.at, one.text, one.last) for one in messages if isinstance(one, Sentence)]


async def test_sentences_go_beside_the_text() -> None:
    """Each piece comes right after the text that completes it, with the voice and when it was said."""
    runs = portions(TEXT[:24], TEXT[24:40], TEXT[40:])
    length = sum(len(run.ids) for run in runs)

    messages = await told(*runs, Done("s", "t", reason="stop", usage=Usage(output_tokens=length)))

    assert [type(message) for message in messages] == [
        Delta, Sentence, Delta, Sentence, Delta, Sentence, Sentence, Finished,
    ]  # fmt: skip
    assert script(messages) == [
        (0, 0, "Sure, I can help you, ", False),
        (1, 22, "of course. ", False),
        (2, 33, "It costs $3.50. ", False),
        (3, 49, "Bye", True),
    ]
    sentences = [message for message in messages if isinstance(message, Sentence)]
    assert {one.voice for one in sentences} == {VOICE}
    assert [one.since for one in sentences] == [100, 101, 102, 103]
    assert "".join(message.text for message in messages if isinstance(message, Delta)) == TEXT


async def test_answer_without_a_voice_is_not_spoken() -> None:
    """A turn that nobody wants to hear has no sentences."""
    run = tokens(TEXT, voice=None)

    assert script(await told(run, done(run))) == []


@pytest.mark.parametrize("reason", ["cancelled", "failed", "deadline"])
async def test_last_sentence_of_an_answer_that_is_given_up(reason: FinishReason) -> None:
    """What was not yet said of it is not said, but that it ends is."""
    run = tokens("Well, then. It goes")

    assert script(await told(run, done(run, reason))) == [(0, 0, "Well, then. ", False), (1, 19, "", True)]


async def test_answer_that_is_cut_at_its_bound_is_spoken_to_its_end() -> None:
    """An answer that has as many tokens as it may have is spoken, half a sentence or not."""
    run = tokens("Well, then. It goes")

    assert script(await told(run, done(run, "length")))[-1] == (1, 12, "It goes", True)


async def test_nothing_beyond_a_stop_string_is_spoken() -> None:
    """A stop string and what follows it is not said; what only looked like one is."""
    run = tokens("Well, then. It#s END goes. On", stop=("#END", "END"))

    assert script(await told(run, done(run)))[-1] == (1, 12, "It#s ", True)

    held = tokens("Well, then. It E", stop=("END",))
    assert script(await told(held, done(held)))[-1] == (1, 12, "It E", True)


async def test_empty_answer_has_a_last_sentence() -> None:
    """An answer without a token, whose end alone tells how it was to be spoken, and one without a word."""
    assert script(await told(done(None, "cancelled", VOICE))) == [(0, 0, "", True)]
    run = tokens("😀")
    assert script(await told(run, done(run))) == [(0, 1, "", True)]


@given(data=st.data())
async def test_same_sentences_after_a_takeover(data: st.DataObject) -> None:
    """A new owner, who may get the tokens in other runs and twice, says the same pieces, at other times."""
    run = tokens(TEXT)
    ends = sorted(data.draw(st.sets(st.integers(1, len(run.ids) - 1), max_size=6)))
    runs = [
        Tokens("s", "t", a, run.ids[a:b], voice=None if a else VOICE)
        for a, b in zip([0, *ends], [*ends, len(run.ids)], strict=True)
    ]
    repeated = data.draw(st.integers(0, len(runs) - 1))

    anew = await told(*runs[: repeated + 1], *runs[repeated:], done(run), start=500.0)

    assert script(anew) == script(await told(run, done(run)))
    assert min(one.since for one in anew if isinstance(one, Sentence)) == 500
