"""The text stage: one Turn in, one Prompt out.

Reads in the order the data flows: clean → merge → window → template → ids. Keeps no conversation.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from operator import neg
from typing import TYPE_CHECKING, Any

from pipeline.errors import EmptyTurn, PromptTooLong, UnknownModel
from pipeline.messages import Prompt, Turn, Utterance
from pipeline.stage import Stage
from pipeline.topics import TURNS
from stages.preprocess.text.clean import clean
from stages.preprocess.text.template import ChatTemplate, encode
from stages.preprocess.text.window import left, longest, starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LARGE = 4_096
"""Characters from which on a turn is prepared in a thread: they take a millisecond or two."""

SLICE = 16_384
"""Characters of a very long message that are tokenised at a time, until there are too many tokens."""

DENSEST = 16
"""Characters a token: a longer history than this is not tried, whatever the tokenizer."""

STEPS = 2
"""The window moves by so many times fewer characters than it has tokens: an eighth of it where a token has four."""

OUTPUT_SHARE = 4
"""At most one part in so many of the context is kept free for the answer."""


class TextStage:
    """Prepare turns for a model with `context` tokens, known as any of `models`.

    Args:
        tokenizer: The model's.
        context: Tokens that prompt and answer may have together.
        models: The names a client may ask for.
        system: The system prompt of a conversation that brings none.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, context: int, models: tuple[str, ...], system: str | None = None
    ) -> None:
        self._tokenizer: Any = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._context = context
        self._models = models
        self._system = system

    async def __call__(self, turn: Turn) -> AsyncGenerator[Prompt, None]:
        """The prompt for `turn`: the system prompt and as much of the conversation as fits.

        Raises:
            UnknownModel: the turn asks for another model.
            EmptyTurn: the last thing said is not the user's, or is blank.
            PromptTooLong: the last message alone does not fit.
        """
        if turn.model is not None and turn.model not in self._models:
            raise UnknownModel(turn.model, known=self._models)
        size = sum(len(utterance.text) for utterance in turn.conversation)
        yield await asyncio.to_thread(self._prompt, turn) if size > LARGE else self._prompt(turn)

    def _prompt(self, turn: Turn) -> Prompt:
        reserved = min(turn.sampling.max_output_tokens, self._context // OUTPUT_SHARE)
        limit = self._context - max(reserved, 1)
        if turn.conversation:
            self._refuse_hopeless(turn.conversation[-1].text, limit)
        system, talk = self._read(turn.conversation)
        ids = self._fit(system, talk, limit=limit)
        return Prompt(turn.session, turn.turn, ids=tuple(ids), sampling=turn.sampling)

    def _read(self, conversation: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
        """The system prompt (none or one message) and the talk, cleaned, without blank messages."""
        said = [Utterance(u.role, text) for u in conversation if (text := _clean(u)).strip()]
        orders = [u.text for u in said if u.role == "system"] or ([self._system] if self._system else [])
        talk = [u for u in said if u.role != "system"]
        if not talk or talk[-1].role != "user":
            raise EmptyTurn
        return ([Utterance("system", "\n\n".join(orders))] if orders else []), talk

    def _fit(self, system: list[Utterance], talk: list[Utterance], *, limit: int) -> list[int]:
        begins = starts(talk, chunk=max(1, limit // STEPS))
        sizes = left(talk, begins)
        skip = min(bisect_left(sizes, -limit * DENSEST, key=neg), len(begins) - 1)

        def encode_from(place: int) -> list[int]:
            return self._template.encode([*system, *_merge(talk[begins[skip + place] :])])

        ids = longest(sizes[skip:], limit, encode_from)
        if len(ids) > limit:
            raise PromptTooLong(got=len(ids), limit=limit)
        return ids

    def _refuse_hopeless(self, text: str, limit: int) -> None:
        """Count the tokens of a very long message only until they are too many; the rest is estimated."""
        if len(text) <= 4 * SLICE:
            return
        count = 0
        for at in range(0, len(text), SLICE):
            count += len(encode(self._tokenizer, clean(text[at : at + SLICE]))) - 2  # a cut makes two tokens of one
            if count > limit:
                raise PromptTooLong(got=count * len(text) // min(at + SLICE, len(text)), limit=limit)


def text_stage(stage: TextStage, *, concurrency: int = 64) -> Stage:
    """The stage for the loop."""
    return Stage(name="text", reads=TURNS, each=stage, concurrency=concurrency)


def _clean(utterance: Utterance) -> str:
    """What was said, cleaned; blanks around an answer stay, since the model wrote them."""
    text = clean(utterance.text)
    return text if utterance.role == "assistant" else text.strip()


def _merge(talk: Sequence[Utterance]) -> list[Utterance]:
    """Messages of one side in a row as one message: most templates want the sides to take turns."""
    merged: list[Utterance] = []
    for utterance in talk:
        if merged and merged[-1].role == utterance.role:
            merged[-1] = Utterance(utterance.role, f"{merged[-1].text}\n{utterance.text}")
        else:
            merged.append(utterance)
    return merged
