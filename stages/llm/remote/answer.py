"""One answer of a server, as the pipeline knows it: token ids, with the text that the server goes on behind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from pipeline.errors import InvalidParameter, PenstockError
from pipeline.messages import FinishReason, Prompt
from stages.detokenize import Vocabulary
from stages.llm.choosing.parameters import check_ids
from stages.llm.remote.client import Piece
from stages.llm.remote.prompt import PromptText
from stages.llm.remote.retokenize import Retokenizer, Spelling
from stages.llm.stage import Run
from stages.stops import StopFinder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextCodec:
    """A tokenizer, both ways: built once, off the event loop, as a large vocabulary takes a second."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = str(tokenizer.name_or_path)
        self.tokens = len(tokenizer)
        self.end: int | None = tokenizer.eos_token_id
        self.vocabulary = Vocabulary(tokenizer)
        self.spelling = Spelling(tokenizer, self.vocabulary)
        self.prompt = PromptText(tokenizer, self.vocabulary)


class RemoteAnswer:
    """One answer in the making: its tokens and its text, from whoever they are, and whether it has ended."""

    def __init__(self, prompt: Prompt, codec: TextCodec, context: int) -> None:
        known = range(codec.tokens)
        if not all(token in known for token in (*prompt.ids, *prompt.emitted)):
            raise InvalidParameter("prompt", f"has token ids that {codec.name!r} does not have")
        check_ids(prompt.sampling, codec.tokens, codec.name)
        self.prompt = prompt
        self._codec, self._context = codec, context
        self._detokenizer = codec.vocabulary.start()
        self._stops = StopFinder(prompt.sampling.stop)
        self.ids: list[int] = []
        self.text = ""
        self._add(prompt.emitted)
        self._retokenizer = Retokenizer(codec.spelling, begun=bool(self.text))

    @property
    def finish(self) -> FinishReason | None:
        """How it has ended already, by what is known of it."""
        if self._stops.found or not set(self.prompt.sampling.stop_ids).isdisjoint(self.prompt.emitted):
            return "stop"
        return "length" if self.room < 1 else None

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        most = min(self.prompt.sampling.max_output_tokens, self._context - len(self.prompt.ids))
        return most - len(self.ids)

    def take(self, piece: Piece) -> Run:
        """The tokens of `piece`. A stop string that the server does not heed ends the answer here.

        Raises:
            PenstockError: its tokenizer is another one.
        """
        if piece.ids is None:
            ids = self._retokenizer.feed(piece.text)
        else:
            ends = {self._codec.end, *self.prompt.sampling.stop_ids}
            ids = tuple(takewhile(lambda token: token not in ends, piece.ids))  # some servers say the end, too
            self._check(ids)
        self._add(ids)
        cached = min(piece.cached_tokens, len(self.prompt.ids))  # behind a cut, what was said is there as well
        return Run(ids, "stop" if self._stops.found else piece.finish, cached)

    def _check(self, ids: Sequence[int]) -> None:
        known = range(self._codec.tokens)
        if not all(token in known for token in ids):
            raise PenstockError(f"the server says tokens that {self._codec.name!r} does not have; is it the model's?")

    def _add(self, ids: Sequence[int]) -> None:
        self.ids += ids
        text = "".join(map(self._detokenizer.feed, ids))
        self.text += text
        self._stops.feed(text)
