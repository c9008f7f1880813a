"""Who is computed, and how much of each in a step: places, memory, deadlines, priorities. Knows no model.

A sequence gets a place when there is memory for its prompt and some of its answer, and not for all it may become; so
memory can run out. Then the least important one, of several the one that came last, gives its place up. What it has
computed stays as long as nobody needs the memory, it is the first to get a place again, and nobody notices but by the
time it takes.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import Overloaded, TooFewBlocks
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import blocks_for
from stages.llm.fair import FairQueue
from stages.llm.models.forward import Work
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.sequence import Sequence
from stages.llm.stage import Run

log = logging.getLogger(__name__)

Outcome = tuple[Sequence, Run | Exception]

KEPT = 8
"""One place of so many is kept free for tenants that have none, or few, where there are several tenants."""

ROOM = 64
"""Tokens of an answer for which there must be memory when it begins, and while it goes on before others begin."""

SPREAD = 0.5
"""Those who have waited in vain are told to come back at different moments, so much of the shortest apart."""

SOONEST_S = 0.5
"""Nobody is told to come back sooner."""


@dataclass
class Counts:
    """What a batch has done since its start, for the metrics.

    `prompt_tokens` are those of all prompts that got a place, with what a former owner said of the answer;
    `cancelled_tokens` were chosen for nothing. Of the `prefix_cache_queries` tokens of all prompts, `prefix_cache_hits`
    were there already.
    """

    prompt_tokens: int = 0
    generation_tokens: int = 0
    cancelled_tokens: int = 0
    refused: int = 0
    preemptions: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0


class Scheduler:
    """The sequences being answered (`running`), at most `most`, and those that wait, at most `queue`.

    Who would wait for others until it is too late, by what is known of the `rates`, is refused; who need not wait never
    is. `chance` gives a number from 0 to 1.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        most: int,
        queue: int,
        rates: Rates,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.pool = pool
        self._most, self._queue = most, queue
        self._kept = most // KEPT
        self._rates = rates
        self._chance = chance
        self.running: list[Sequence] = []
        self.waiting = FairQueue()
        self.counts = Counts()
        self.released_at = 0.0
        """When a place came free last (`time.time`)."""

    def add(self, sequence: Sequence) -> list[Outcome]:
        """Answer `sequence` as soon as it is its turn; what has come at once of it, or of another that had to go."""
        if sequence.finish is not None:  # it had ended before it came
            return [(sequence, Run((), sequence.finish))]
        sequence.most = min(sequence.most, self.pool.positions + 1)  # the last token's keys are not needed
        if sequence.begun and len(sequence.ids) >= sequence.most:  # its former owner had no memory left, or more
            return [(sequence, Run((), "length"))]
        if len(sequence.ids) > self.pool.positions:
            self.counts.refused += 1
            return [(sequence, TooFewBlocks(got=len(sequence.ids), limit=self.pool.positions))]
        sequence.cached = self.pool.known(sequence.tenant, sequence.ids)
        sequence.cost = self._rates.rest(sequence)
        sequence.since = time.monotonic()
        wait = 0.0 if sequence.begun else self._wait(sequence)
        if wait and time.monotonic() + wait > self._latest(sequence):
            return [self._refused(sequence, wait)]
        last = self.waiting.add(sequence, self._queue + max(0, self._most - len(self.running)))
        return [] if last is None else [self._refused(last, self._wait(last))]

    def drop(self, number: int) -> None:
        """Give the sequence of that number up, if it is still there."""
        for sequence in [waiting for waiting in self.waiting if waiting.number == number]:
            self.counts.cancelled_tokens += sequence.output
            self.waiting.remove(sequence)
        for sequence in [running for running in self.running if running.number == number]:
            self.counts.cancelled_tokens += sequence.output
            self.release(sequence)

    def expire(self) -> list[Outcome]:
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

    def admit(self) -> None:
        """Give waiting sequences places and memory, in a fair order."""
        while (sequence := self._next()) is not None and self._has_room(sequence):
            first = self.waiting.take(sequence)
            table, known = self.pool.table(sequence.tenant, sequence.ids, sequence.scope)
            sequence.place(table, known)
            if first:
                sequence.cached = known
                self.counts.prompt_tokens += len(sequence.ids)
                self.counts.prefix_cache_queries += len(sequence.ids)
                self.counts.prefix_cache_hits += known
            sequence.reserve(_wanted(sequence))
            self.running.append(sequence)

    def reserve(self) -> None:
        """See that there is memory for the certain tokens of all, the most important first; else some must wait."""
        short = [sequence for sequence in self.running if not sequence.housed]
        for sequence in sorted(short, key=_importance, reverse=True):
            while sequence in self.running and not sequence.reserve(len(sequence.ids)):
                self._preempt(min(self.running, key=_importance))

    def plan(self, pace: Pace) -> list[Work[Sequence]]:
        """Who computes how much: one token (and its drafts) for each stream, and prompts share what time remains."""
        works = [Work(sequence, sequence.pending) for sequence in self.streams()]
        prompts = [sequence for sequence in self.running if sequence.pending > sequence.logits]
        budget = pace.budget(streaming=bool(works))
        for left, sequence in zip(range(len(prompts), 0, -1), sorted(prompts, key=_pending), strict=True):
            share = min(sequence.pending, max(1, budget // left))
            if share < sequence.pending:  # where to choose at is computed in one step
                share = min(share, sequence.pending - sequence.logits)
            budget -= share
            works.append(Work(sequence, share))
        return works

    def streams(self) -> list[Sequence]:
        """The sequences whose next token can be chosen in this step."""
        return [sequence for sequence in self.running if sequence.pending == sequence.logits]

    def release(self, sequence: Sequence, *, failed: bool = False) -> None:
        """Give its place away; what it has computed may serve later prompts, unless it has `failed`."""
        if sequence not in self.running:
            return
        self.running.remove(sequence)
        self.released_at = time.time()
        self.waiting.charge(sequence, self._rates.spent(sequence) - sequence.cost)
        self._free(sequence, failed=failed)

    def _free(self, sequence: Sequence, *, failed: bool = False) -> None:
        if failed:
            self.pool.discard(sequence.table)
        else:
            computed = sequence.ids[: sequence.computed]
            self.pool.release(sequence.table, computed, sequence.tenant, sequence.scope)
        sequence.leave()

    def _preempt(self, sequence: Sequence) -> None:
        """Let `sequence` wait at the head of the queue; it has begun, so it is not refused any more."""
        log.info("sequence %d waits: there is no memory for it and more important ones", sequence.number)
        self.counts.preemptions += 1
        self.running.remove(sequence)
        self._free(sequence)
        sequence.latest = sequence.ends = math.inf
        self.waiting.back(sequence)

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

    def _next(self) -> Sequence | None:
        """Who gets the next place."""
        return next((sequence for sequence in self.waiting.heads if self._may_have_place(sequence)), None)

    def _may_have_place(self, sequence: Sequence) -> bool:
        """Whether it may have the next place: the last are kept for tenants with few, who so need not wait for one."""
        if sequence.begun or not self.waiting.rivals or self._most - len(self.running) > self._kept:
            return True
        return sum(running.tenant == sequence.tenant for running in self.running) < self._kept

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether there is a place, and memory for it beside what the running ones will soon need. One always has."""
        if not self.running:
            return True
        if len(self.running) >= self._most:
            return False
        soon = sum(max(0, blocks_for(_wanted(running)) - len(running.table.blocks)) for running in self.running)
        return soon + self.pool.missing(sequence.tenant, sequence.ids, _wanted(sequence)) <= self.pool.available


def _wanted(sequence: Sequence) -> int:
    """Positions for which a sequence should have memory."""
    return min(len(sequence.ids) + ROOM, sequence.most - 1)


def _importance(sequence: Sequence) -> tuple[int, float]:
    """By its priority, then by how long it has been here."""
    return sequence.sampling.priority, -sequence.since


def _pending(sequence: Sequence) -> int:
    return sequence.pending
