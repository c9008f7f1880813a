"""One step of the model for all sequences at once: plan → forward → accept. Runs in the thread that owns the model.

No prefill phase and no decode phase: a sequence has tokens to compute, one or many, and a step takes some of each.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from pipeline.errors import Overloaded, PenstockError
from stages.llm.fair import FairQueue
from stages.llm.forward import Work, forward
from stages.llm.kv import PrefixPool, rounded
from stages.llm.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.sampling import sample, with_likelihoods
from stages.llm.sequence import Sequence
from stages.llm.speculation import Speculation
from stages.llm.stage import Run

log = logging.getLogger(__name__)

Outcome = tuple[Sequence, Run | Exception]

KEPT = 8
"""One place of so many is kept free for tenants that have none, or few, where there are several tenants."""

SPREAD = 0.5
"""Those who have waited in vain are told to come back at different moments, so much of the shortest apart."""

SOONEST_S = 0.5
"""Nobody is told to come back sooner."""


@dataclass
class Counts:
    """What a batch has done since its start, for the metrics. `cancelled_tokens` were chosen for nothing."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    cancelled_tokens: int = 0
    refused: int = 0


class Batch:
    """The sequences being answered (`running`) and those that wait for a place, at most `queue` of them.

    At most `most` are answered at once, and only as many as find room in `kv_bytes` to their ends, but always one. Who
    would wait for others until it is too late, by what is known of the `rates`, is refused; who need not wait never is.
    `chance` gives a number from 0 to 1.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        most: int,
        queue: int,
        kv_bytes: int,
        pace: Pace,
        rates: Rates,
        prefixes: PrefixPool,
        speculation: Speculation | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._model = model
        self._most, self._queue = most, queue
        self._kept = most // KEPT
        self._positions = kv_bytes // (model.token_bytes + (speculation.token_bytes if speculation else 0))
        self._pace = pace
        self._rates = rates
        self.prefixes = prefixes
        self._speculation = speculation
        self._chance = chance
        self.running: list[Sequence] = []
        self.waiting = FairQueue()
        self.counts = Counts()
        self.released_at = 0.0
        """When a place came free last (`time.time`)."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> list[Outcome]:
        """Answer `sequence` as soon as it is its turn; what has come at once of it, or of another that had to go."""
        if sequence.finish is not None:  # it had ended before it came
            return [(sequence, Run((), sequence.finish))]
        sequence.cached = self.prefixes.known(sequence.scope, sequence.ids)
        sequence.cost = self._rates.rest(sequence)
        sequence.since = time.monotonic()
        wait = 0.0 if sequence.begun else self._wait(sequence)
        if wait and time.monotonic() + wait > self._latest(sequence):
            return [self._refused(sequence, wait)]
        last = self.waiting.add(sequence, self._queue + max(0, self._most - len(self.running)))
        return [] if last is None else [self._refused(last, self._wait(last))]

    def _wait(self, sequence: Sequence) -> float:
        """Seconds until `sequence` would get a place, if it came now; 0 if it gets one at once.

        The model works off what is before it at its own speed; at the moment at which a place comes free, the answers
        in the other places are half done on the average.
        """
        before = self.waiting.before(sequence)
        if not before and self._may_have_place(sequence) and self._has_room(sequence):
            return 0.0
        others = before + sum(map(self._rates.rest, self.running))
        halves = sum(running.cost for running in self.running[1:]) / 2
        return max(0.0, others - halves)

    def _latest(self, sequence: Sequence) -> float:
        """When it must have a place: in time for its first token before the request's end."""
        return min(sequence.latest, sequence.ends - self._rates.first(sequence))

    def _refused(self, sequence: Sequence, wait: float) -> Outcome:
        self.counts.refused += 1
        return sequence, Overloaded("the model cannot begin with it in time", retry_after=max(SOONEST_S, wait))

    def drop(self, number: int) -> None:
        """Give the sequence of that number up, if it is still there."""
        for sequence in [waiting for waiting in self.waiting if waiting.number == number]:
            self.waiting.remove(sequence)
        for sequence in [running for running in self.running if running.number == number]:
            self.counts.cancelled_tokens += sequence.output
            self._release(sequence)

    def close(self) -> None:
        """Give all sequences up; what is computed of them may outlive us."""
        for sequence in list(self.running):
            self._release(sequence)
        self.prefixes.close()

    def step(self) -> list[Outcome]:
        """Compute some tokens of every running sequence; what has come of it."""
        self._admit()
        outcomes = self._expire()
        busy, began = bool(self.waiting), time.perf_counter()
        self._speculate()
        works = self._plan()
        if works:
            prompt = sum(work.count for work in works if work.sequence.pending > work.sequence.logits)
            computing = time.perf_counter()
            chosen = self._compute(works)
            now = time.perf_counter()
            self._pace.saw(sum(work.count for work in works), now - computing)
            if self._speculation:
                self._speculation.saw(works, now - computing)
            self._note(chosen, prompt, now - began, busy=busy)
            outcomes += chosen
        for sequence, outcome in outcomes:
            if isinstance(outcome, Exception) or outcome.finish is not None:
                self._release(sequence)
        return outcomes

    def _note(self, chosen: Iterable[Outcome], prompt: int, seconds: float, *, busy: bool) -> None:
        """Learn what things cost: of a model with all places taken, as that is what those who wait wait for."""
        runs = [(sequence, run) for sequence, run in chosen if isinstance(run, Run)]
        output = sum(len(run.ids) for _, run in runs)
        self.counts.prompt_tokens += prompt
        self.counts.output_tokens += output
        self._rates.saw(prompt, output, seconds, busy=busy)
        for sequence, run in runs:
            if run.finish is not None:
                self._rates.ended(sequence.output)

    def _expire(self) -> list[Outcome]:
        """Refuse those that waited until it was too late: the model was slower than it was thought.

        So what is thought of it is no good to tell them; they all have waited long, and shall be away as long again.
        """
        now = time.monotonic()
        late = [sequence for sequence in self.waiting if now > min(sequence.latest, sequence.ends)]
        for sequence in late:
            self.waiting.remove(sequence)
        waits = [max(now - sequence.since, self._wait(sequence)) for sequence in late]
        return [
            self._refused(sequence, wait * (1 + SPREAD * self._chance()))
            for sequence, wait in zip(late, waits, strict=True)
        ]

    def _admit(self) -> None:
        """Give waiting sequences places, in a fair order."""
        while (sequence := self._next()) is not None and self._has_room(sequence):
            self.waiting.take(sequence)
            sequence.kv, sequence.computed = self.prefixes.take(sequence.scope, sequence.ids)
            sequence.kv.most = sequence.most
            sequence.cached = sequence.computed
            self.running.append(sequence)

    def _next(self) -> Sequence | None:
        """Who gets the next place."""
        return next((sequence for sequence in self.waiting.heads if self._may_have_place(sequence)), None)

    def _may_have_place(self, sequence: Sequence) -> bool:
        """Whether it may have the next place: the last are kept for tenants with few, who so need not wait for one."""
        if sequence.begun or not self.waiting.rivals or self._most - len(self.running) > self._kept:
            return True
        return sum(running.tenant == sequence.tenant for running in self.running) < self._kept

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
        """Have the next tokens guessed. Guesses save time and nothing else, so without them all goes on."""
        if self._speculation is None:
            return
        try:
            self._speculation.follow(self.running)
            self._speculation.propose(self._streams())
        except Exception:  # whatever may come of it
            log.exception("guessing ahead has failed; going on without it")
            self._speculation = None

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
                run = work.sequence.accept(chosen[at:end], self._model.eos)
                outcomes.append((work.sequence, with_likelihoods(run, logits[at:end], work.sequence.sampling)))
            else:
                outcomes.append((work.sequence, PenstockError("the model gave no finite logits")))
            at = end
        return outcomes

    def _release(self, sequence: Sequence) -> None:
        """Give its place away; what it has computed may serve the session's next turn."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.released_at = time.time()
            self.waiting.charge(sequence, self._rates.spent(sequence) - sequence.cost)
            self.prefixes.put(sequence.scope, sequence.ids[: sequence.computed], sequence.kv)


def _pending(sequence: Sequence) -> int:
    return sequence.pending
