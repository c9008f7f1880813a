"""How likely continuations are, and which tokens are likeliest, by the same batch that answers.

A continuation is computed as guesses are that the model judges (see `Sequence`): piece by piece after the prefix. What
is computed stays in the pool, so a prefix is computed once for all continuations, and for answers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

from pipeline.errors import EmptyTurn, InvalidParameter
from pipeline.messages import Likelihood, Prompt, Sampling
from pipeline.request import NOBODY
from stages.llm.choosing.sampling import likelihoods
from stages.llm.sequence import Sequence
from stages.llm.stage import Run

if TYPE_CHECKING:
    from stages.detokenize import Vocabulary

TOGETHER = 32
"""Continuations that are given to the engine at once."""

PIECE = 32
"""Tokens of a continuation that are judged in one step: a long one must not hold streams up."""


class Score(NamedTuple):
    """The natural logarithm of each token's probability after those before it."""

    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """The logarithm of the whole continuation's probability."""
        return math.fsum(self.logprobs)


class Scorer(Protocol):
    """An engine that scores. `TorchEngine` is one."""

    async def judge(self, prefix: Seq[int], candidate: Seq[int], top: int) -> Run:
        """The likelihoods of `candidate` after `prefix`; of the `top` likeliest tokens where there is no candidate."""
        ...


class Candidate(Sequence):
    """A continuation `candidate` of `prefix` to be judged. Without one, the `top` likeliest tokens are found."""

    def __init__(
        self,
        number: int,
        prefix: Seq[int],
        candidate: Seq[int],
        vocabulary: Vocabulary,
        *,
        top: int = 0,
        tenant: str = NOBODY,
        latest: float = math.inf,
        ends: float = math.inf,
    ) -> None:
        prompt = Prompt("", "", tuple(prefix), Sampling(max_output_tokens=1, speculation=0))
        super().__init__(number, prompt, vocabulary, context=len(prefix) + 1, tenant=tenant, latest=latest, ends=ends)
        self._candidate, self._judged, self._top = tuple(candidate), 0, top
        self.drafts = self._piece[:-1]

    @property
    def output(self) -> int:
        """Nothing is chosen."""
        return 0

    @property
    def _piece(self) -> list[int]:
        """What is judged next."""
        return list(self._candidate[self._judged : self._judged + PIECE])

    def leave(self) -> None:
        """See `Sequence.leave`; what is to be judged stays."""
        drafts = self.drafts
        super().leave()
        self.drafts = drafts

    @property
    def housed(self) -> bool:
        """See `Sequence.housed`; the candidate needs memory, too."""
        return len(self.ids) + len(self.drafts) <= self.table.positions

    def reserve(self, positions: int) -> bool:
        """See `Sequence.reserve`; the candidate needs memory, too."""
        return super().reserve(max(positions, len(self.ids) + len(self.drafts)))

    def settle(self, chosen: Seq[int], logits: Tensor, at: int, eos: frozenset[int]) -> Run:
        """See `Sequence.settle`: nothing is chosen; a piece of the candidate is judged, and certain from now on."""
        if not self._candidate:
            self.computed, self.finish = len(self.ids), "stop"
            return Run((), self.finish, self.cached, _likeliest(logits[at], self._top))
        piece = self._piece
        found = likelihoods(logits[at:], piece, 0)
        self._judged += len(piece)
        self.ids += piece
        self.computed = len(self.ids) - 1
        self.drafts = self._piece[:-1]
        if self._judged == len(self._candidate):
            self.finish = "stop"
        return Run((), self.finish, self.cached, found)


def _likeliest(logits: Tensor, top: int) -> tuple[Likelihood, ...]:
    best = logits.double().log_softmax(-1).topk(min(top, len(logits)))
    return tuple(map(Likelihood, best.indices.tolist(), best.values.tolist()))


async def score(engine: Scorer, prefix: Seq[int], candidates: Seq[Seq[int]]) -> list[Score]:
    """How likely each of `candidates` is after `prefix`, in their order.

    Raises:
        EmptyTurn: the prefix, or a candidate, has no tokens.
        PromptTooLong: prefix and candidate are longer than the model's context.
        InvalidParameter: there are ids that the model does not have.
        Overloaded: there is no room now.
        EngineUnavailable: the engine is stopping, or broken.
    """
    if not prefix or not all(candidates):
        raise EmptyTurn
    places = asyncio.Semaphore(TOGETHER)

    async def one(candidate: Seq[int]) -> Score:
        async with places:
            run = await engine.judge(prefix, candidate, 0)
        return Score(tuple(each.logprob for each in run.likelihoods))

    if not candidates:
        return []
    first = await one(candidates[0])  # alone: the others find what it has computed of the prefix
    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(one(candidate)) for candidate in candidates[1:]]
    return [first, *(task.result() for task in others)]


async def rank(engine: Scorer, prefix: Seq[int], top_k: int) -> list[tuple[int, float]]:
    """The `top_k` likeliest tokens of the whole vocabulary after `prefix`, each with the logarithm of its probability.

    Raises:
        EmptyTurn, PromptTooLong, InvalidParameter, Overloaded, EngineUnavailable: see `score`.
    """
    if not prefix:
        raise EmptyTurn
    if top_k < 1:
        raise InvalidParameter("top_k", "must be at least 1")
    run = await engine.judge(prefix, (), top_k)
    return [(each.id, each.logprob) for each in run.likelihoods]
