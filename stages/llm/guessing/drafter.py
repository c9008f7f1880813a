"""A smaller model that guesses ahead of the target.

It draws with the same noise as the target and from logits treated alike (see `Sequence.choice`), so that it guesses
right also where the choice is by chance. Its keys and values follow what was accepted: `table.drafted` says how many
of the tokens it has computed. When to guess, and how far, is decided elsewhere (`speculation.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import pad

from pipeline.errors import ModelLoadError
from stages.llm.cache.blocks import BlockTable
from stages.llm.choosing.sampling import Choice, sample
from stages.llm.costs import Costs
from stages.llm.models.forward import Work, forward
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence

NEAR = 32
"""Tokens that may be caught up with in the first step of guessing."""


class Wish(NamedTuple):
    """Guess at most so many `tokens` for `sequence`."""

    sequence: Sequence
    tokens: int


class DraftModel:
    """Guess for sequences of `model` with `draft`.

    Raises:
        ModelLoadError: the two models have different tokens.
    """

    def __init__(self, model: LoadedModel, draft: LoadedModel) -> None:
        check_tokens(model, draft)
        self.draft = draft
        self._model = model

    def most(self, sequence: Sequence) -> int:
        """How far it can guess: its context may be shorter than the target's."""
        return max(0, self.draft.context - len(sequence.ids) + 1)

    def lag(self, sequence: Sequence) -> int:
        """Tokens that the target has computed and the draft has not."""
        return View(sequence, self.draft.tokens).behind

    def read(self, sequences: Seq[Sequence], tokens: int) -> None:
        """Compute what the target has computed of `sequences`, at most `tokens` altogether."""
        share = max(1, tokens // len(sequences))
        views = [View(sequence, self.draft.tokens) for sequence in sequences]
        works = [Work(view, min(view.behind, share)) for view in views]
        forward(self.draft, works)
        for work in works:
            work.sequence.advance(work.count)

    def guess(self, wishes: Seq[Wish], costs: Costs | None = None) -> None:
        """Guess for all sequences together, token by token, to an answer's end at most; `costs` learn of it."""
        going = [(View(wish.sequence, self.draft.tokens), wish.tokens) for wish in wishes if wish.tokens]
        while going:
            began = time.perf_counter()
            works = [Work(view, view.pending) for view, _ in going]
            logits = forward(self.draft, works)
            tokens = sample(self._fitted(logits), [view.choice for view, _ in going])
            for (view, _), work, token in zip(going, works, tokens, strict=True):
                view.advance(work.count)
                view.sequence.drafts.append(token)
            if costs:
                costs.saw(len(works), sum(work.count for work in works), time.perf_counter() - began)
            going = [(view, count) for view, count in going if view.goes_on(count, self._model.eos)]

    def _fitted(self, logits: Tensor) -> Tensor:
        """`logits` over the target's ids: padding rows beyond the tokens may be of different number."""
        missing = self._model.tokens - logits.shape[1]
        return logits if not missing else pad(logits, (0, missing), value=float("-inf"))


class View:
    """A sequence as the draft model sees it: the same tokens, with keys and values of its own.

    Ids beyond the draft's `ids` (no tokenizer makes them, but a client may send them) are computed as another one.
    """

    logits = 1

    def __init__(self, sequence: Sequence, ids: int) -> None:
        self.sequence = sequence
        self._ids = ids

    @property
    def table(self) -> BlockTable:
        """The draft uses the same numbers of blocks as the target, in a store of its own."""
        return self.sequence.table

    @property
    def store(self) -> Tensor:
        """The draft's keys and values."""
        return self.sequence.table.pool.draft

    @property
    def computed(self) -> int:
        """Tokens the draft has computed."""
        return self.sequence.table.drafted

    @property
    def pending(self) -> int:
        """Tokens to compute before the next guess."""
        return len(self.sequence.ids) + len(self.sequence.drafts) - self.computed

    @property
    def behind(self) -> int:
        """Tokens that the target has computed and the draft has not."""
        return self.sequence.computed - self.computed

    def tokens(self, start: int, count: int) -> list[int]:
        """The ids at these positions."""
        tokens = self.sequence.tokens(start, count)
        return tokens if max(tokens) < self._ids else [min(token, self._ids - 1) for token in tokens]

    @property
    def choice(self) -> Choice:
        """How to choose the next guess: as the target will choose at that position."""
        return self.sequence.choice(len(self.sequence.ids) + len(self.sequence.drafts))

    def advance(self, count: int) -> None:
        """`count` more are computed."""
        self.sequence.table.drafted += count

    def goes_on(self, count: int, eos: frozenset[int]) -> bool:
        """Whether there is more to guess, of `count` altogether, and memory for it."""
        drafts = self.sequence.drafts
        known = len(self.sequence.ids) + len(drafts)
        return len(drafts) < count and drafts[-1] not in eos and self.sequence.reserve(known)


def check_tokens(model: LoadedModel, draft: LoadedModel) -> None:
    """See that an id means the same to both models.

    Raises:
        ModelLoadError: it does not; says of which token, and names both models.
    """
    ours, theirs = model.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if ours != theirs:
        token = min(token for token in {*ours, *theirs} if ours.get(token) != theirs.get(token))
        here, there = (f"id {ids[token]}" if token in ids else "no id" for ids in (ours, theirs))
        why = f"its tokens are different ones ({token!r} has {there}, and {here} there); name one of its family"
        raise ModelLoadError(draft.name, f"it cannot draft for {model.name!r}: {why}")
