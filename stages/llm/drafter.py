"""A smaller model that guesses ahead of the target.

It draws with the same noise as the target (see `sampling.py`), so that it guesses right also where the choice is by
chance. Its keys and values follow what was accepted: `kv.drafted` says how many of the tokens it has computed.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from pipeline.errors import ModelLoadError
from stages.llm.costs import Costs, best_length, measure
from stages.llm.forward import Work, forward
from stages.llm.kv import SequenceKV
from stages.llm.model import LoadedModel
from stages.llm.sampling import Choice, sample
from stages.llm.sequence import Sequence

FARTHEST = 6
TRY_EACH = 32
"""Steps after which guessing is tried again where it did not pay."""

CHUNK = 512
"""Tokens of a prompt that are computed at once to catch up with the target."""


class Drafter:
    """Guess for sequences of `model` with `draft`. `length` fixes how far; by default what pays best is chosen.

    Raises:
        ModelLoadError: the two models have different tokens.
    """

    def __init__(self, model: LoadedModel, draft: LoadedModel, *, length: int | None = None) -> None:
        if model.tokenizer.get_vocab() != draft.tokenizer.get_vocab():
            raise ModelLoadError(draft.name, f"it cannot draft for {model.name!r}: its tokens are different ones")
        self._model, self._draft = model, draft
        self._length = length
        self._costs: tuple[Costs, Costs] | None = None
        self._steps = 0

    def prepare(self, model: Costs) -> None:
        """Measure what guessing costs, for a `model` of such costs. Until then nothing is guessed."""
        if self._length is None:
            self._costs = model, measure(self._draft)

    @property
    def token_bytes(self) -> int:
        """Memory for a token's keys and values."""
        return self._draft.token_bytes

    def follow(self, sequences: Seq[Sequence]) -> None:
        """Compute what the target has computed of prompts, so that guessing can begin at once after them."""
        views = [view for view in map(View, sequences) if view.behind > (0 if view.in_prompt else CHUNK)]
        if views:
            works = [Work(view, min(view.behind, max(1, CHUNK // len(views)))) for view in views]
            forward(self._draft, works)
            for work in works:
                work.sequence.advance(work.count)

    def propose(self, sequences: Seq[Sequence]) -> None:
        """Guess the next tokens of `sequences`."""
        views = [view for view in map(View, sequences) if view.behind <= CHUNK]
        for ahead in range(self._ahead(sequences)):
            views = [view for view in views if view.may_guess(ahead, self._draft)]
            if not views:
                return
            works = [Work(view, view.pending) for view in views]
            tokens = sample(forward(self._draft, works), [view.choice for view in views])
            for work, token in zip(works, tokens, strict=True):
                work.sequence.advance(work.count)
                work.sequence.sequence.drafts.append(token)

    def _ahead(self, sequences: Seq[Sequence]) -> int:
        if self._costs is None or not sequences:
            return self._length or 0
        self._steps += 1
        model, draft = self._costs
        best = best_length([sequence.luck for sequence in sequences], model, draft, most=FARTHEST)
        return best or int(self._steps % TRY_EACH == 0)


class View:
    """A sequence as the draft model sees it: the same tokens, with keys and values of its own."""

    logits = 1

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence

    @property
    def kv(self) -> SequenceKV:
        """The draft's own, kept with the target's."""
        if self.sequence.kv.draft is None:
            self.sequence.kv.draft = SequenceKV(self.sequence.most)
        return self.sequence.kv.draft

    @property
    def computed(self) -> int:
        """Tokens the draft has computed."""
        return self.sequence.kv.drafted

    @property
    def pending(self) -> int:
        """Tokens to compute before the next guess."""
        return len(self.sequence.ids) + len(self.sequence.drafts) - self.computed

    @property
    def behind(self) -> int:
        """Tokens that the target has computed and the draft has not."""
        return self.sequence.computed - self.computed

    @property
    def in_prompt(self) -> bool:
        """Whether the target is still busy with the prompt."""
        return self.sequence.pending > self.sequence.logits

    def tokens(self, start: int, count: int) -> list[int]:
        """The ids at these positions."""
        return self.sequence.tokens(start, count)

    @property
    def choice(self) -> Choice:
        """How to choose the next guess: as the target will choose at that position."""
        return self.sequence.choice(len(self.sequence.ids) + len(self.sequence.drafts))

    def advance(self, count: int) -> None:
        """`count` more are computed."""
        self.sequence.kv.drafted += count

    def may_guess(self, ahead: int, draft: LoadedModel) -> bool:
        """Whether a guess can be of use: the answer has room, goes on, and the draft has positions for it."""
        drafts = self.sequence.drafts
        return (
            len(drafts) == ahead < self.sequence.room - 1
            and len(self.sequence.ids) + ahead < draft.context
            and not (drafts and drafts[-1] in draft.eos)
        )
