"""How an answer is to be spoken goes with it through all stages, whoever computes it, also after a takeover."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from pipeline.messages import Delta, Done, Finished, Message, Prompt, Sampling, Tokens, Turn, Utterance, Voice
from pipeline.stage import chain
from pipeline.voice import Sentence
from stages.detokenize import Vocabulary
from stages.llm.instant import InstantEngine
from stages.llm.stage import LLMStage, llm_stage, resume, stopped
from stages.postprocess.stage import postprocess_stage
from stages.preprocess.text import TextStage, text_stage
from tests.stages import models

VOICE = Voice("marin", 1.1, "pcma")
TEXT = "Sure, I can help you, of course. Bye."


async def said(stream: Any) -> list[Any]:
    """All that comes of `stream`."""
    async with asyncio.timeout(20), aclosing(stream) as messages:
        return [message async for message in messages]


async def answer(prompt: Prompt, engine: InstantEngine | None = None) -> list[Message]:
    """What the LLM stage says to `prompt`."""
    return await said(LLMStage(engine or InstantEngine(5, run=2), max_prompt=10)(prompt))


async def test_prompt_has_the_turns_voice() -> None:
    """The text stage hands the voice on."""
    stage = TextStage(models.byte_level(), context=400, models=("small",))
    turn = Turn("s", "t", (Utterance("user", "Hi"),), voice=VOICE)

    (prompt,) = await said(stage(turn))

    assert prompt.voice == VOICE


@pytest.mark.parametrize("emitted", [(), (1, 2, 3)])
async def test_first_tokens_have_the_voice(emitted: tuple[int, ...]) -> None:
    """What an owner says first of an answer, at its beginning or in its middle, has the voice; nothing else has."""
    first, *others, done = await answer(Prompt("s", "t", (1,), emitted=emitted, voice=VOICE))

    assert isinstance(first, Tokens)
    assert first.voice == VOICE
    assert [message.voice for message in others if isinstance(message, Tokens)] == [None] * len(others)
    assert isinstance(done, Done)
    assert done.voice is None


async def test_voice_outlives_a_takeover() -> None:
    """A prompt that is gone on with by another keeps its voice."""
    prompt = Prompt("s", "t", (1,), voice=VOICE)

    again = resume(prompt, (await answer(prompt))[:1])

    assert again is not None
    assert again.voice == VOICE


async def test_end_of_an_empty_answer_has_the_voice() -> None:
    """Where no token could carry it, the end does: of an empty answer, and of one that is given up at once."""
    prompt = Prompt("s", "t", (1,), voice=VOICE)

    (done,) = await answer(prompt, InstantEngine(0))

    assert isinstance(done, Done)
    assert done.voice == VOICE
    assert isinstance(end := stopped(prompt, [], "cancelled"), Done)
    assert end.voice == VOICE
    assert isinstance(end := stopped(prompt, [Tokens("s", "t", 0, (7,))], "cancelled"), Done)
    assert end.voice is None


@pytest.mark.parametrize("voice", [VOICE, None])
async def test_chained_stages_say_the_sentences(voice: Voice | None) -> None:
    """Three stages as one say the text and, of a turn with a voice, its sentences, up to the last."""
    tokenizer = models.byte_level()
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    whole = chain(
        text_stage(TextStage(tokenizer, context=400, models=("small",))),
        llm_stage(InstantEngine(script=ids), max_prompt=399),
        postprocess_stage(Vocabulary(tokenizer)),
    )
    assert whole.each is not None

    messages = await said(whole.each(Turn("s", "t", (Utterance("user", "Hi"),), Sampling(), voice=voice)))

    assert "".join(message.text for message in messages if isinstance(message, Delta)) == TEXT
    assert isinstance(messages[-1], Finished)
    sentences = [message for message in messages if isinstance(message, Sentence)]
    spoken = [(one.text, one.last, one.voice) for one in sentences]
    expected = [("Sure, I can help you, ", False), ("of course. ", False), ("Bye.", True)]
    assert spoken == ([(*one, VOICE) for one in expected] if voice else [])
    if voice:
        assert any(isinstance(message, Delta) for message in messages[messages.index(sentences[0]) :])
