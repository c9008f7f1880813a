"""The text stage: one Turn in, one Prompt out.

Reads in the order the data flows: clean → window → merge → template → ids. Keeps no conversation.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from operator import neg
from typing import TYPE_CHECKING, Any

from pipeline.errors import PromptTooLong, UnknownModel
from pipeline.messages import Prompt, Turn, Utterance
from pipeline.stage import Stage
from pipeline.topics import TURNS
from stages.preprocess.text.clean import clean
from stages.preprocess.text.said import Note, Said, read
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

NOTES_SHARE = 2
"""One part in so many of what the system prompt leaves is for what the system says in the course of a conversation."""

LEAST = 4
"""Tokens that the last message takes at least, beside another."""


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

        The last word need not be the user's: the model may be asked to begin, to go on, or to do what the system says.

        Raises:
            UnknownModel: the turn asks for another model.
            EmptyTurn: nothing was said, or the user's last word is blank.
            PromptTooLong: the last message alone does not fit.
            InvalidParameter: the model's template refuses such a conversation.
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
        ids = self._fit(read(turn.conversation, self._system), limit)
        return Prompt(turn.session, turn.turn, ids=tuple(ids), sampling=turn.sampling, voice=turn.voice)

    def _fit(self, said: Said, limit: int) -> list[int]:
        """The system prompt and the last word in any case; beside them the newest of the notes and of the talk."""
        room = limit - len(self._template.encode(said.messages((), [Utterance("user", "")])))
        notes = self._newest(said, room // NOTES_SHARE)
        hopeless = self._hopeless(said.talk, room)
        while True:
            ids = self._window(said, [note for note, _ in notes], hopeless, limit)
            if len(ids) <= limit:
                return ids
            if len(notes) <= said.wanted:
                raise PromptTooLong(got=len(ids), limit=limit)
            missing = len(ids) - limit
            while missing > 0 and len(notes) > said.wanted:  # the last word goes before the notes
                missing -= notes.pop(0)[1]

    def _newest(self, said: Said, most: int) -> list[tuple[Note, int]]:
        """The newest notes that have `most` tokens together, each with its own; one that alone has more is left out."""
        kept: list[tuple[Note, int]] = []
        for note in reversed(said.notes):
            count = self._count(note.text, most)
            if len(kept) >= said.wanted and count > most:
                continue
            if len(kept) >= said.wanted and count + sum(tokens for _, tokens in kept) > most:
                break
            kept.append((note, count))
        return kept[::-1]

    def _hopeless(self, talk: Sequence[Utterance], room: int) -> frozenset[int]:
        """Which messages before the last one can have no place: they were refused, and must not hide what is older."""
        found: list[int] = []
        passed = 0
        for number in range(len(talk) - 2, -1, -1):
            text = talk[number].text
            if len(text.encode()) > room and self._count(text, room) > room - LEAST:
                found.append(number)
            else:
                passed += len(text)
            if passed > room * DENSEST:
                break
        return frozenset(found)

    def _window(self, said: Said, notes: Sequence[Note], hopeless: frozenset[int], limit: int) -> list[int]:
        """As much of the talk as fits, encoded; where even the least does not fit, that."""
        talk = said.talk
        begins = [n for n in starts(talk, chunk=max(1, limit // STEPS)) if not n or n not in hopeless]
        if said.wanted and talk:
            begins.append(len(talk))

        def kept(begin: int) -> list[Utterance]:
            return [utterance for n, utterance in enumerate(talk[begin:], begin) if n not in hopeless]

        sizes = left(kept, begins)
        skip = min(bisect_left(sizes, -limit * DENSEST, key=neg), len(begins) - 1)
        return longest(
            sizes[skip:], limit, lambda place: self._template.encode(said.messages(notes, kept(begins[skip + place])))
        )

    def _count(self, text: str, most: int) -> int:
        """The tokens of `text`; those of one that has certainly more than `most` are not counted."""
        return most + 1 if len(text) > most * DENSEST else len(encode(self._tokenizer, text))

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
