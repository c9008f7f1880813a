"""One step of the model for all sequences at once: plan → forward → accept. Runs in the thread that owns the model.

No prefill phase and no decode phase: a sequence has tokens to compute, one or many, and a step takes some of each.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence as Seq

from pipeline.errors import PenstockError
from stages.llm.drafter import Drafter
from stages.llm.forward import Work, forward
from stages.llm.kv import PrefixPool, rounded
from stages.llm.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.sampling import sample
from stages.llm.sequence import Sequence
from stages.llm.stage import Run

log = logging.getLogger(__name__)

Outcome = tuple[Sequence, Run | Exception]


class Batch:
    """The sequences being answered (`running`) and those that wait for a place.

    At most `most` are answered at once, and only as many as find room in `kv_bytes` to their ends, but always one.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        most: int,
        kv_bytes: int,
        pace: Pace,
        prefixes: PrefixPool,
        drafter: Drafter | None = None,
    ) -> None:
        self._model = model
        self._most = most
        self._positions = kv_bytes // (model.token_bytes + (drafter.token_bytes if drafter else 0))
        self._pace = pace
        self._prefixes = prefixes
        self._drafter = drafter
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Answer `sequence` from the next step on, if there is a place."""
        self.waiting.append(sequence)

    def drop(self, number: int) -> None:
        """Give the sequence of that number up, if it is still there."""
        self.waiting = deque(sequence for sequence in self.waiting if sequence.number != number)
        for sequence in [sequence for sequence in self.running if sequence.number == number]:
            self._release(sequence)

    def close(self) -> None:
        """Give all sequences up; what is computed of them may outlive us."""
        for sequence in list(self.running):
            self._release(sequence)
        self._prefixes.close()

    def step(self) -> list[Outcome]:
        """Compute some tokens of every running sequence; what has come of it."""
        outcomes = self._admit()
        self._speculate()
        works = self._plan()
        if works:
            began = time.perf_counter()
            outcomes += self._compute(works)
            self._pace.saw(sum(work.count for work in works), time.perf_counter() - began)
        for sequence, outcome in outcomes:
            if isinstance(outcome, Exception) or outcome.finish is not None:
                self._release(sequence)
        return outcomes

    def _admit(self) -> list[Outcome]:
        """Give waiting sequences places; those that had ended before they came need none."""
        ended: list[Outcome] = []
        while self.waiting and self._has_room(self.waiting[0]):
            sequence = self.waiting.popleft()
            if sequence.finish is not None:
                ended.append((sequence, Run((), sequence.finish)))
                continue
            sequence.kv, sequence.computed = self._prefixes.take(sequence.scope, sequence.ids)
            sequence.kv.most = sequence.most
            sequence.cached = sequence.computed
            self.running.append(sequence)
        return ended

    def _has_room(self, sequence: Sequence) -> bool:
        positions = sum(rounded(running.most) for running in self.running) + rounded(sequence.most)
        return not self.running or (len(self.running) < self._most and positions <= self._positions)

    def _plan(self) -> list[Work[Sequence]]:
        """Who computes how much: one token (and its drafts) for each stream, and prompts share what time remains."""
        works = [Work(sequence, sequence.pending) for sequence in self._streams()]
        prompts = [sequence for sequence in self.running if sequence.pending > sequence.logits]
        budget = self._pace.budget(streaming=bool(works))
        for left, sequence in zip(range(len(prompts), 0, -1), sorted(prompts, key=_pending), strict=True):
            share = min(sequence.pending, max(1, budget // left))
            budget -= share
            works.append(Work(sequence, share))
        return works

    def _streams(self) -> list[Sequence]:
        """The sequences whose next token can be chosen in this step."""
        return [sequence for sequence in self.running if sequence.pending == sequence.logits]

    def _speculate(self) -> None:
        """Have the draft model guess. Guesses save time and nothing else, so without them all goes on."""
        if self._drafter is None:
            return
        try:
            self._drafter.follow(self.running)
            self._drafter.propose(self._streams())
        except Exception:  # whatever the draft model raises
            log.exception("the draft model has failed; going on without it")
            self._drafter = None

    def _compute(self, works: Seq[Work[Sequence]]) -> list[Outcome]:
        """Compute `works` together; if that fails, one by one, so that one sequence's trouble stays its own."""
        try:
            return self._try(works)
        except Exception as error:  # whatever the model raises
            if len(works) == 1:
                log.exception("a step of sequence %d failed", works[0].sequence.number)
                return [(works[0].sequence, error)]
            return [outcome for work in works for outcome in self._compute([work])]

    def _try(self, works: Seq[Work[Sequence]]) -> list[Outcome]:
        logits = forward(self._model, works)
        choices = [choice for work in works if work.last for choice in work.sequence.choices()]
        chosen = sample(logits, choices)
        finite = logits[range(len(chosen)), chosen].isfinite().tolist()
        outcomes: list[Outcome] = []
        at = 0
        for work in works:
            if not work.last:
                work.sequence.advance(work.count)
                continue
            end = at + work.sequence.logits
            if all(finite[at:end]):
                outcomes.append((work.sequence, work.sequence.accept(chosen[at:end], self._model.eos)))
            else:
                outcomes.append((work.sequence, PenstockError("the model gave no finite logits")))
            at = end
        return outcomes

    def _release(self, sequence: Sequence) -> None:
        """Give its place away; what it has computed may serve the session's next turn."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._prefixes.put(sequence.scope, sequence.ids[: sequence.computed], sequence.kv)


def _pending(sequence: Sequence) -> int:
    return sequence.pending
