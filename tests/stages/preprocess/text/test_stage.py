"""Turns become prompts that fit the model, or are refused in words that help."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from pipeline.errors import EmptyTurn, PromptTooLong, TurnRejected, UnknownModel
from pipeline.messages import Prompt, Role, Sampling, Turn, Utterance
from pipeline.topics import TURNS
from stages.llm.cache.kv import common
from stages.preprocess.text import TextStage, text_stage
from tests.stages import models


@pytest.fixture
def stage(byte_level: PreTrainedTokenizerBase) -> TextStage:
    """A stage for a model with 400 positions."""
    return TextStage(byte_level, context=400, models=("small", "default"), system="Be kind.")


def make_turn(*said: tuple[Role, str], model: str | None = None, **sampling: Any) -> Turn:
    """A turn with this conversation."""
    return Turn("s", "t", tuple(Utterance(role, text) for role, text in said), Sampling(**sampling), model)


async def prompt_of(stage: TextStage, turn: Turn) -> Prompt:
    """The stage's one prompt for `turn`."""
    async with asyncio.timeout(20), aclosing(stage(turn)) as stream:
        (prompt,) = [message async for message in stream]
    return prompt


async def text_of(stage: TextStage, turn: Turn) -> str:
    """The prompt for `turn` as text, control tokens included."""
    return str(models.byte_level().decode(list((await prompt_of(stage, turn)).ids)))


async def test_turn_becomes_one_prompt(stage: TextStage) -> None:
    """A turn becomes the template's text around its cleaned messages; who asked and how goes with it."""
    turn = make_turn(("user", "  cafe\u0301?\x00 "), seed=3, model="small")

    prompt = await prompt_of(stage, turn)

    assert (prompt.session, prompt.turn, prompt.sampling) == ("s", "t", turn.sampling)
    assert models.byte_level().decode(list(prompt.ids)) == (
        "<|bos|><|system|> Be kind.<|end|><|user|> café?<|end|><|assistant|>"
    )


async def test_conversations_own_system_prompt_counts(stage: TextStage) -> None:
    """The system prompt of the conversation replaces the stage's, and several become one."""
    text = await text_of(stage, make_turn(("system", "One."), ("user", "Hi"), ("system", "Two.")))

    assert text == "<|bos|><|system|> One.\n\nTwo.<|end|><|user|> Hi<|end|><|assistant|>"


async def test_messages_of_one_side_become_one(stage: TextStage) -> None:
    """What the user said in several messages is one, since templates want the sides to take turns."""
    text = await text_of(stage, make_turn(("user", "Hi"), ("user", " "), ("user", "there")))

    assert text.endswith("<|user|> Hi\nthere<|end|><|assistant|>")


async def test_a_refused_message_does_not_spoil_those_after_it(stage: TextStage) -> None:
    """A message that was too long, and so has no answer behind it, is dropped like any other that does not fit."""
    text = await text_of(stage, make_turn(("user", "word " * 600), ("user", "Hello?")))

    assert text == "<|bos|><|system|> Be kind.<|end|><|user|> Hello?<|end|><|assistant|>"


@pytest.mark.parametrize("size", [400, 100_000])
async def test_a_refused_message_does_not_hide_those_before_it(stage: TextStage, size: int) -> None:
    """A message that fits nowhere is left out, and what was said before it is still known."""
    said: list[tuple[Role, str]] = [("user", "I am Zed."), ("assistant", "Hi Zed."), ("user", "word " * size)]
    with pytest.raises(PromptTooLong):
        await prompt_of(stage, make_turn(*said))

    text = await text_of(stage, make_turn(*said, ("user", "Who?"), ("assistant", "Zed."), ("user", "Sure?")))

    assert text == (
        "<|bos|><|system|> Be kind.<|end|><|user|> I am Zed.<|end|><|assistant|>Hi Zed.<|end|>"
        "<|user|> Who?<|end|><|assistant|>Zed.<|end|><|user|> Sure?<|end|><|assistant|>"
    )


@pytest.mark.parametrize("words", range(60, 320, 20))
async def test_whatever_was_refused_hides_nothing(stage: TextStage, words: int) -> None:
    """Just as long as a message may be, or a little longer: either it is answered, or it hides nothing."""
    said: list[tuple[Role, str]] = [("user", "I am Zed."), ("assistant", "Hi Zed."), ("user", "tent " * words)]
    try:
        await prompt_of(stage, make_turn(*said))
    except PromptTooLong:
        assert "I am Zed." in await text_of(stage, make_turn(*said, ("user", "Who?")))


async def test_newest_notes_stay(stage: TextStage) -> None:
    """What the system says in the course of a conversation goes when it is too much, the oldest first."""
    said: list[tuple[Role, str]] = [("system", "Be brief."), ("user", "First?"), ("assistant", "Yes.")]
    said += [("system", f"The customer looks at page {number}.") for number in range(60)]

    text = await text_of(stage, make_turn(*said, ("user", "Hi")))

    assert text.startswith("<|bos|><|system|> Be brief.\n\nThe customer looks at page")
    assert "page 59.<|end|><|user|> First?<|end|><|assistant|>Yes.<|end|><|user|> Hi<|end|><|assistant|>" in text
    assert "page 0." not in text


async def test_notes_make_room_for_the_last_message(stage: TextStage) -> None:
    """A last message that fits beside the system prompt is answered, however much the system said besides."""
    said: list[tuple[Role, str]] = [("system", "Be brief.")]
    said += [("system", f"The customer looks at page {number}.") for number in range(60)]
    long = "Hello there, how are you today? " * 20

    text = await text_of(stage, make_turn(*said, ("user", long)))

    assert text.startswith("<|bos|><|system|> Be brief.")
    assert text.count("Hello there") == 20


async def test_note_that_is_too_long_is_left_out(stage: TextStage) -> None:
    """A note that could never be told leaves those before it alone, unless it is the last word."""
    said: list[tuple[Role, str]] = [("system", "Be brief."), ("system", "Bob."), ("system", "word " * 600)]

    text = await text_of(stage, make_turn(*said, ("user", "Hi")))

    assert text == "<|bos|><|system|> Be brief.\n\nBob.<|end|><|user|> Hi<|end|><|assistant|>"
    with pytest.raises(PromptTooLong):
        await prompt_of(stage, make_turn(*said))


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ([("system", "Greet.")], "<|system|> Greet.<|end|>"),
        ([("system", "Be brief."), ("system", "Greet.")], "<|system|> Be brief.\n\nGreet.<|end|>"),
        (
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("system", "Ask."), ("system", "Now.")],
            "<|system|> Be brief.<|end|><|user|> Hi<|end|><|assistant|>Hello<|end|><|system|> Ask.\n\nNow.<|end|>",
        ),
        (
            [("user", "Hi"), ("assistant", "Hello")],
            "<|system|> Be kind.<|end|><|user|> Hi<|end|><|assistant|>Hello<|end|>",
        ),
        (
            [("system", "Be brief."), ("user", "Hi"), ("system", "Ask.")],
            "<|system|> Be brief.\n\nAsk.<|end|><|user|> Hi<|end|>",
        ),
    ],
    ids=["orders only", "orders and a note", "note last", "answer last", "note after the user"],
)
async def test_the_model_may_be_asked_to_speak(stage: TextStage, said: list[tuple[Role, str]], prompt: str) -> None:
    """Where the last word is not the user's, the model begins, goes on, or does what the system said last."""
    assert await text_of(stage, make_turn(*said)) == f"<|bos|>{prompt}<|assistant|>"


async def test_last_note_comes_before_the_talk(stage: TextStage) -> None:
    """To do what the system says, the model can do without what was said before, of which none may fit beside it."""
    said: list[tuple[Role, str]] = [("system", "Be brief."), ("user", "tent " * 120), ("assistant", "Yes.")]

    text = await text_of(stage, make_turn(*said, ("system", "shop " * 60)))

    assert text.startswith("<|bos|><|system|> Be brief.\n\nshop shop")
    assert "tent" not in text


@pytest.mark.parametrize(
    ("turn", "refusal", "words"),
    [
        (make_turn(), EmptyTurn, "send a message first"),
        (make_turn(("user", " \u200b\n ")), EmptyTurn, "send a message first"),
        (make_turn(("system", "Be kind."), ("user", "\x00")), EmptyTurn, "send a message first"),
        (make_turn(("user", "Hi"), ("assistant", "Hello"), ("user", "\x00")), EmptyTurn, "send a message first"),
        (make_turn(("user", "Hi"), model="huge"), UnknownModel, "'huge' is not served here; served: small, default"),
        (make_turn(("user", "word " * 600)), PromptTooLong, r"has \d+ tokens, but at most 300 fit"),
    ],
    ids=["nothing", "blanks", "blank after the system", "blank after an answer", "other model", "too long"],
)
async def test_refusals(stage: TextStage, turn: Turn, refusal: type[TurnRejected], words: str) -> None:
    """What cannot be answered is refused, in words that help."""
    with pytest.raises(refusal, match=words):
        await prompt_of(stage, turn)


@pytest.mark.parametrize("text", ["a", "word ", "😀", "<|end|>", "\n"], ids=ascii)
async def test_a_megabyte_is_refused_soon(stage: TextStage, text: str) -> None:
    """A megabyte of text is refused without blocking the event loop, whatever it consists of."""
    turn = make_turn(("user", "x" + text * (1_000_000 // len(text)) + "x"))
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)

    ticking = asyncio.create_task(tick())
    with pytest.raises(PromptTooLong) as refusal:
        await prompt_of(stage, turn)
    ticking.cancel()

    assert refusal.value.got > refusal.value.limit
    assert longest < 5


async def test_oldest_exchanges_go_first(stage: TextStage) -> None:
    """When a conversation is too long, its oldest exchanges go; the system prompt and the last message stay."""
    said: list[tuple[Role, str]] = [("system", "Be brief.")]
    for number in range(40):
        said += [("user", f"Question {number}?"), ("assistant", f"Answer {number}.")]

    text = await text_of(stage, make_turn(*said, ("user", "The last one")))

    assert text.startswith("<|bos|><|system|> Be brief.<|end|><|user|> Question")
    assert text.endswith("<|assistant|>Answer 39.<|end|><|user|> The last one<|end|><|assistant|>")
    assert "Question 0?" not in text


async def test_room_is_kept_for_the_answer(stage: TextStage) -> None:
    """The prompt leaves room for the answer asked for, but gives up no more than a quarter of the context for it."""
    said: list[tuple[Role, str]] = [("user", "word " * 20), ("assistant", "word " * 20)] * 20

    for asked, kept in [(10, 390), (90, 310), (10_000, 300)]:
        prompt = await prompt_of(stage, make_turn(*said, ("user", "Hi"), max_output_tokens=asked))
        assert kept - 150 < len(prompt.ids) <= kept


async def test_prompts_begin_alike_for_many_turns(stage: TextStage) -> None:
    """As a conversation goes on, most prompts begin with the whole one before, also when the window moves."""
    said: list[tuple[Role, str]] = []
    before: tuple[int, ...] = ()
    kept = 0
    for number in range(60):
        prompt = await prompt_of(stage, make_turn(*said, ("user", f"Question {number}?"), max_output_tokens=20))
        kept += common(before, prompt.ids) == len(before)
        before = prompt.ids
        said += [("user", f"Question {number}?"), ("assistant", f"Answer {number}.")]

    assert kept > 45


def test_stage_reads_turns(stage: TextStage) -> None:
    """The stage is wired behind the gateway."""
    assert text_stage(stage).reads is TURNS
