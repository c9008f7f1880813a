"""One answer in the making, as the model thread sees it: its tokens, what of them is computed, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.errors import InvalidParameter
from pipeline.messages import FinishReason, Prompt
from pipeline.request import NOBODY
from stages.detokenize import Vocabulary
from stages.llm.cache.blocks import BlockTable
from stages.llm.choosing.penalties import shift_of
from stages.llm.choosing.sampling import Choice, with_likelihoods
from stages.llm.stage import Run
from stages.stops import StopFinder

if TYPE_CHECKING:
    from stages.llm.choosing.grammar import Matcher


class Sequence:
    """A prompt and its answer so far.

    `ids` are certain, `drafts` follow them by guess; the keys and values of the first `computed` are stored. All else
    can be told from these: a new worker that is given `prompt.emitted` stands where the former one stood. `most` is
    the number of tokens at which the answer ends. It waits `since` then, must have a place by `latest`, and its first
    token before the request `ends` (all of `time.monotonic`); it costs about `cost` seconds of the model's time, and is
    the turn of a session of `tenant`.
    """

    def __init__(
        self,
        number: int,
        prompt: Prompt,
        vocabulary: Vocabulary,
        *,
        context: int,
        matcher: Matcher | None = None,
        tenant: str = NOBODY,
        latest: float = math.inf,
        ends: float = math.inf,
    ) -> None:
        self.number = number
        self.tenant = tenant
        self.scope = prompt.session
        self.latest = latest
        self.ends = ends
        self.cost = 0.0
        self.since = 0.0
        self.begun = bool(prompt.emitted)
        self.start = len(prompt.ids) + len(prompt.emitted)
        self.sampling = prompt.sampling
        self.ids = [*prompt.ids, *prompt.emitted]
        self.drafts: list[int] = []
        self.computed = 0
        self.cached = 0
        self.finish: FinishReason | None = None
        self.most = min(len(prompt.ids) + prompt.sampling.max_output_tokens, context)
        self.matcher = matcher
        self._shift = shift_of(prompt.sampling, self.ids, len(prompt.ids))
        self._table: BlockTable | None = None
        self._stop = _StopWatch(vocabulary, prompt.sampling.stop) if prompt.sampling.stop else None
        if any(self._stops(token) for token in prompt.emitted):
            self.finish = "stop"
        elif len(self.ids) >= self.most:
            self.finish = "length"

    @property
    def table(self) -> BlockTable:
        """Where its keys and values are. Only who has a place has one."""
        assert self._table is not None, "the sequence has no blocks"
        return self._table

    @property
    def store(self) -> Tensor:
        """The keys and values of all sequences."""
        return self.table.pool.store

    def place(self, table: BlockTable, computed: int = 0) -> None:
        """It is computed in `table` from now on, which holds the first `computed` of its tokens."""
        self._table, self.computed = table, computed

    def leave(self) -> None:
        """It has no blocks any more, and would have to compute all anew."""
        self._table, self.computed, self.drafts = None, 0, []

    def reserve(self, positions: int) -> bool:
        """See that there is memory for so many positions, as far as nobody uses it. Whether there is."""
        return self.table.pool.extend(self.table, positions)

    @property
    def housed(self) -> bool:
        """Whether it has memory for its certain tokens."""
        return len(self.ids) <= self.table.positions

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.ids) + len(self.drafts) - self.computed

    @property
    def output(self) -> int:
        """Tokens of the answer that were chosen here."""
        return len(self.ids) - self.start

    @property
    def room(self) -> int:
        """Tokens that the answer may still have."""
        return self.most - len(self.ids)

    @property
    def logits(self) -> int:
        """Positions to choose at: after the last certain token, and after each draft."""
        return 1 + len(self.drafts)

    def tokens(self, start: int, count: int) -> list[int]:
        """The `count` tokens from position `start` on, certain or drafted."""
        end, certain = start + count, len(self.ids)
        return self.ids[start:end] + self.drafts[max(0, start - certain) : max(0, end - certain)]

    def choices(self) -> list[Choice]:
        """How to choose at each of the `logits` positions."""
        choices = [self.choice(len(self.ids) + ahead) for ahead in range(self.logits)]
        if self.matcher and self.matcher.error:
            raise InvalidParameter("grammar", self.matcher.error)
        return choices

    def choice(self, position: int) -> Choice:
        """How to choose the token at `position`, the drafts before it taken for granted."""
        ask = self.sampling
        before = tuple(self.drafts[: position - len(self.ids)]) if self._shift or self.matcher else ()
        mask = self.matcher.mask(self.ids, before) if self.matcher else None
        return Choice(ask.seed, position, ask.temperature, ask.top_p, ask.top_k, ask.min_p, self._shift, before, mask)

    def advance(self, count: int) -> None:
        """`count` more were computed, but the last certain one is not yet among them."""
        self.computed += count

    def settle(self, chosen: Seq[int], logits: Tensor, at: int, eos: frozenset[int]) -> Run:
        """What follows from what the model has `chosen` by its `logits`: from row `at` on one for each of `choices`."""
        run = self.accept(chosen, eos)
        return run if self.sampling.logprobs is None else with_likelihoods(run, logits[at:], self.sampling.logprobs)

    def accept(self, chosen: Seq[int], eos: frozenset[int]) -> Run:
        """Go on with what the model has `chosen` (see `choices`): all that follows from right guesses.

        The model's own choice counts at every position. A draft saves time if it is equal, and costs nothing but the
        computing if not: what was stored for it is overwritten.
        """
        new: list[int] = []
        drafts, self.drafts = self.drafts, []
        self.computed = len(self.ids)
        for token, guess in zip(chosen, [*drafts, None], strict=True):
            if token in eos or token in self.sampling.stop_ids:
                self.finish = "stop"
                break
            new.append(token)
            self.ids.append(token)
            self.finish = "stop" if self._stops(token) else "length" if len(self.ids) >= self.most else None
            if self.finish or token != guess:
                break
            self.computed += 1
        self.table.drafted = min(self.table.drafted, self.computed)
        return Run(tuple(new), self.finish, self.cached)

    def _stops(self, token: int) -> bool:
        ended = self.matcher is not None and self.matcher.ended(self.ids)
        return ended or token in self.sampling.stop_ids or (self._stop is not None and self._stop.feed(token))


class _StopWatch:
    """Whether the text of the tokens so far contains a stop string."""

    def __init__(self, vocabulary: Vocabulary, stops: Seq[str]) -> None:
        self._detokenizer = vocabulary.start()
        self._finder = StopFinder(stops)

    def feed(self, token: int) -> bool:
        self._finder.feed(self._detokenizer.feed(token))
        return self._finder.found
