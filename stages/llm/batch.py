"""One step of the model for all sequences at once: plan → forward → accept. Runs in the thread that owns the model.

No prefill phase and no decode phase: a sequence has tokens to compute, one or many, and a step takes some of each.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq

from torch import Tensor

from pipeline.errors import PenstockError, TurnRejected
from stages.llm.cache.blocks import BlockPool
from stages.llm.choosing.sampling import sample
from stages.llm.guessing.speculation import Speculation
from stages.llm.models.forward import Work, forward
from stages.llm.models.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.scheduler import Counts, Outcome, Scheduler
from stages.llm.sequence import Sequence
from stages.llm.stage import Run
from stages.llm.state import Steps

log = logging.getLogger(__name__)


class Batch:
    """The sequences that `model` answers, with their keys and values in `pool`; see `Scheduler` for the rest."""

    def __init__(
        self,
        model: LoadedModel,
        pool: BlockPool,
        *,
        most: int,
        queue: int,
        pace: Pace,
        rates: Rates,
        speculation: Speculation | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._model = model
        self._pace = pace
        self._rates = rates
        self._speculation = speculation
        self.pool = pool
        self.steps = Steps()
        self.scheduler = Scheduler(pool, most=most, queue=queue, rates=rates, chance=chance)

    @property
    def running(self) -> list[Sequence]:
        """Those that have a place."""
        return self.scheduler.running

    @property
    def waiting(self) -> int:
        """How many have none."""
        return len(self.scheduler.waiting)

    @property
    def counts(self) -> Counts:
        """What was done since the start."""
        return self.scheduler.counts

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> list[Outcome]:
        """Answer `sequence` as soon as it is its turn; what has come at once of it, or of another that had to go."""
        return self.scheduler.add(sequence)

    def drop(self, number: int) -> None:
        """Give the sequence of that number up, if it is still there."""
        self.scheduler.drop(number)

    def close(self) -> None:
        """Give all sequences up; what is computed of them may outlive us."""
        for sequence in list(self.running):
            self.scheduler.release(sequence)
        self.pool.close()

    def step(self) -> list[Outcome]:
        """Compute some tokens of every running sequence; what has come of it."""
        self.scheduler.admit()
        outcomes = self.scheduler.expire()
        self.scheduler.reserve()
        busy, began = bool(self.waiting), time.perf_counter()
        self._speculate()
        works = self.scheduler.plan(self._pace)
        if works:
            prompt = sum(work.count for work in works if work.sequence.pending > work.sequence.logits)
            computing = time.perf_counter()
            chosen = self._compute(works)
            now = time.perf_counter()
            self._pace.saw(sum(work.count for work in works), now - computing)
            if self._speculation:
                self._speculation.saw(works, now - computing)
            self.steps.saw(now - began, sum(work.count for work in works))
            self._note(chosen, prompt, now - began, busy=busy)
            outcomes += chosen
        for sequence, outcome in outcomes:
            if isinstance(outcome, Exception) or outcome.finish is not None:
                self.scheduler.release(sequence, failed=isinstance(outcome, Exception))
        return outcomes

    def _note(self, chosen: Iterable[Outcome], prompt: int, seconds: float, *, busy: bool) -> None:
        """Learn what things cost: of a model with all places taken, as that is what those who wait wait for."""
        runs = [(sequence, run) for sequence, run in chosen if isinstance(run, Run)]
        output = sum(len(run.ids) for _, run in runs)
        self.counts.generation_tokens += output
        self._rates.saw(prompt, output, seconds, busy=busy)
        for sequence, run in runs:
            if run.finish is not None and sequence.output:
                self._rates.ended(sequence.output)

    def _speculate(self) -> None:
        """Have the next tokens guessed. They only save time: without them, or without memory for them, all goes on."""
        if self._speculation is None:
            return
        streams = [sequence for sequence in self.scheduler.streams() if not sequence.drafts]
        try:
            self._speculation.follow(self.running)
            self._speculation.propose(streams)
        except Exception:  # whatever may come of it
            log.exception("guessing ahead has failed; going on without it")
            self._speculation = None
        for sequence in streams:
            while sequence.drafts and not sequence.reserve(len(sequence.ids) + len(sequence.drafts)):
                sequence.drafts.pop()

    def _compute(self, works: Seq[Work[Sequence]]) -> list[Outcome]:
        """Compute `works` together; if that fails, one by one, so that one sequence's trouble stays its own."""
        try:
            return self._try(works)
        except Exception as error:  # whatever the model raises
            if len(works) == 1:
                if not isinstance(error, TurnRejected):  # its own grammar has become too complex, say
                    log.exception("a step of sequence %d failed", works[0].sequence.number)
                return [(works[0].sequence, error)]
            return [outcome for work in works for outcome in self._compute([work])]

    def _settled(self, sequence: Sequence, chosen: Seq[int], logits: Tensor, at: int) -> Run | Exception:
        """What comes of its tokens. The others have theirs for certain by now, so its trouble must stay its own."""
        try:
            return sequence.settle(chosen, logits, at, self._model.eos)
        except Exception as error:  # whatever it may be
            log.exception("what the model chose for sequence %d could not be taken", sequence.number)
            return error

    def _try(self, works: Seq[Work[Sequence]]) -> list[Outcome]:
        logits = forward(self._model, works)
        choices = [choice for work in works if work.last for choice in work.sequence.choices()]
        chosen = sample(logits, choices)
        finite = [math.isfinite(highest) for highest in logits[: len(chosen)].amax(-1).tolist()]
        outcomes: list[Outcome] = []
        at = 0
        for work in works:
            sequence = work.sequence
            if not work.last:
                sequence.advance(work.count)
            else:
                end = at + sequence.logits
                if all(finite[at:end]):
                    outcomes.append((sequence, self._settled(sequence, chosen[at:end], logits, at)))
                else:
                    outcomes.append((sequence, PenstockError("the model gave no finite logits")))
                at = end
            self.pool.confirm(sequence.table, sequence.ids, sequence.computed)
        return outcomes
