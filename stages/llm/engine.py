"""The torch engine: one thread owns the model, asyncio talks to it through queues.

The thread sleeps when there is nothing to do. What a step has brought forth is handed to the event loop in one call.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, Generator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from pipeline import request
from pipeline.errors import EngineUnavailable, InvalidParameter, Overloaded, PromptTooLong, TooFewBlocks
from pipeline.messages import Likelihood, Prompt
from stages.llm.batch import Batch
from stages.llm.cache.disk import LEAST, DiskCache
from stages.llm.cache.sizing import pool_for
from stages.llm.choosing.grammar import Grammars, Matcher
from stages.llm.choosing.parameters import check_ids
from stages.llm.gpu.steps import record_steps
from stages.llm.guessing.speculation import MOST, Mode, Speculation
from stages.llm.mailbox import Mailbox
from stages.llm.models.model import LoadedModel
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.scheduler import SOONEST_S, Outcome
from stages.llm.scoring import Candidate
from stages.llm.sequence import Sequence
from stages.llm.stage import Run
from stages.llm.state import State
from stages.llm.timing import measure, prompt_token

log = logging.getLogger(__name__)

Order = Sequence | int | None
"""To the model thread: answer this sequence; give that number up; None: end."""


class TorchEngine:
    """Answer many prompts at once with `model`. Use as an async context manager: it owns a thread.

    Args:
        model: Belongs to the engine from now on.
        draft: A smaller model with the same tokens, which guesses ahead; it changes the speed and not the answers.
        speculation: Who guesses: see `Speculation`.
        ahead: How far at most, in one step.
        most: Sequences that are computed together.
        kv_bytes: Memory for the keys and values of running sequences; those without room wait. No more is taken than
            so many sequences can need.
        queue: Prompts that wait for a place; more are refused, those of whom has the most waiting first.
        max_wait_s: How long a prompt may wait for a place; one that would wait longer is refused at once, and
            so is one that would begin only after its request's deadline.
        prefix_bytes: Further memory, for what finished turns leave to later ones of their tenants, which is kept in
            all that nobody uses. Without any nothing is kept.
        disk: Where that goes for which there is no memory, and all of it at the end. Belongs to the engine.
        pace: How much of a prompt a step computes.
        close_s: How long to wait for the step in progress at the end.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        draft: LoadedModel | None = None,
        speculation: Mode = "auto",
        ahead: int = MOST,
        most: int = 32,
        kv_bytes: int = 4 << 30,
        queue: int = 256,
        max_wait_s: float = 10.0,
        prefix_bytes: int = 256 << 20,
        disk: DiskCache | None = None,
        pace: Pace | None = None,
        close_s: float = 10.0,
    ) -> None:
        self._model, self._draft = model, draft
        self.takes = 2 * (most + queue)
        """Prompts that may come at once: those that run or wait, and as many of which some must be refused."""
        self._max_wait_s = max_wait_s
        self._close_s = close_s
        self._grammars = Grammars(model)
        self._speculation = None if speculation == "off" else Speculation(model, draft, mode=speculation, most=ahead)
        self._disk = disk
        self._rates = Rates(most)
        self._batch = Batch(
            model,
            pool_for(model, draft, most=most, kv_bytes=kv_bytes, prefix_bytes=prefix_bytes, below=disk),
            most=most,
            queue=queue,
            pace=pace or Pace(),
            rates=self._rates,
            speculation=self._speculation,
        )
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._mailboxes: dict[int, Mailbox] = {}
        self._prepared = 0
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._live, name="penstock-model", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._died = asyncio.Event()
        self.alive = False
        """Whether prompts are taken."""
        self.busy_since: float | None = None
        """When the step in progress began (`time.monotonic`); None: no step is in progress. For a watchdog."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fail_all("the engine is stopping")
        self._grammars.close()
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join, self._close_s)
        if self._thread.is_alive():
            log.error("the model thread is still in a step after %.0f s; left behind", self._close_s)
        if self._disk:
            await asyncio.to_thread(self._disk.close)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """Continue `prompt`; see `Engine`."""
        ids = (*prompt.ids, *prompt.emitted)
        self._check(ids)
        check_ids(prompt.sampling, self._model.tokens, self._model.name)
        with self._preparing():
            matcher = await self._grammars.matcher(prompt)
        if matcher:
            self._check(ids)  # much may have happened meanwhile
        with self._submitted(self._sequence(prompt, matcher)) as mailbox:
            while True:
                run = await mailbox.next()
                yield run
                if run.finish is not None:
                    return

    async def judge(self, prefix: Seq[int], candidate: Seq[int], top: int) -> Run:
        """The likelihoods of `candidate` after `prefix`; see `Scorer`."""
        ids = (*prefix, *candidate)
        self._check(ids)
        if len(ids) > self._model.context:
            raise PromptTooLong(got=len(ids), limit=self._model.context)
        if len(ids) > (room := self._batch.pool.positions):
            raise TooFewBlocks(got=len(ids), limit=room)
        tenant, latest, ends = self._patience()
        vocabulary, number = self._model.vocabulary, next(self._numbers)
        judged = Candidate(number, prefix, candidate, vocabulary, top=top, tenant=tenant, latest=latest, ends=ends)
        found: tuple[Likelihood, ...] = ()
        with self._submitted(judged) as mailbox:
            while (run := await mailbox.next()).finish is None:
                found += run.likelihoods
        return replace(run, likelihoods=found + run.likelihoods)

    def _check(self, ids: Seq[int]) -> None:
        if not self.alive:
            raise EngineUnavailable("the model is not running")
        if len(self._mailboxes) + self._prepared >= self.takes:
            raise Overloaded("too many turns come at once", retry_after=SOONEST_S)
        if not 0 <= min(ids) <= max(ids) < self._model.tokens:
            raise InvalidParameter("prompt", f"has token ids that {self._model.name!r} does not have")

    @contextmanager
    def _preparing(self) -> Generator[None, None, None]:
        """A prompt waits for its grammar, which counts as coming, too."""
        self._prepared += 1
        try:
            yield
        finally:
            self._prepared -= 1

    @contextmanager
    def _submitted(self, sequence: Sequence) -> Generator[Mailbox, None, None]:
        """Have `sequence` computed; what comes of it. Who leaves before its end has given it up."""
        mailbox = self._mailboxes[sequence.number] = Mailbox()
        try:
            self._orders.put(sequence)
            yield mailbox
        finally:
            del self._mailboxes[sequence.number]
            if not mailbox.ended:
                self._orders.put(sequence.number)

    def _patience(self) -> tuple[str, float, float]:
        """Whose request this is, when it must have a place, and when it ends (`time.monotonic`)."""
        tenant, deadline = request.current()
        now = time.monotonic()
        return tenant, now + self._max_wait_s, now + deadline - time.time()

    def _sequence(self, prompt: Prompt, matcher: Matcher | None) -> Sequence:
        """What is to be answered. What another worker had begun may take as long as it takes."""
        tenant, latest, ends = self._patience()
        if prompt.emitted:
            latest = ends = math.inf
        return Sequence(
            next(self._numbers),
            prompt,
            self._model.vocabulary,
            context=self._model.context,
            matcher=matcher,
            tenant=tenant,
            latest=latest,
            ends=ends,
        )

    @property
    def state(self) -> State:
        """What the engine is doing; as of some moment during the step in progress."""
        batch, rates = self._batch, self._rates
        return State(
            num_requests_running=len(batch.running),
            num_requests_waiting=batch.waiting,
            prompt_tokens_per_s=1 / rates.prompt_s,
            output_tokens_per_s=1 / rates.output_s,
            kv_cache_usage_perc=1 - batch.pool.available / batch.pool.count,
            prefix_bytes=batch.pool.cached_bytes,
            released_timestamp_seconds=batch.scheduler.released_at,
            counts=batch.counts,
            steps=batch.steps,
            speculation=self._speculation.counts if self._speculation else None,
        )

    def _live(self) -> None:
        """What the thread does until it is told to end."""
        try:
            costs = measure(self._model)
            self._rates.measured(costs)
            if self._speculation:
                self._speculation.prepare(costs)
            if self._disk:
                self._disk.open(prompt_token(self._model, LEAST))
            record_steps(self._model, self._draft, self._batch.pool)
            while self._follow_orders():
                self.busy_since = time.monotonic()
                outcomes = self._batch.step()
                self.busy_since = None
                self._call(self._deliver, outcomes)
            self._batch.close()
        except BaseException:  # the one place that must hear of everything: the others wait for this thread
            log.exception("the model thread has died")
            self._call(self._die, "the model thread has died")

    def _follow_orders(self) -> bool:
        """Take what is in the queue; wait only if there is nothing else to do. False: end."""
        while True:
            try:
                order = self._orders.get(block=self._batch.idle)
            except Empty:
                return True
            if order is None:
                return False
            if isinstance(order, Sequence):
                if outcomes := self._batch.add(order):
                    self._call(self._deliver, outcomes)
            else:
                self._batch.drop(order)

    def _call(self, function: object, argument: object) -> None:
        """Have the event loop call `function`; it may be gone by now."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, argument)  # type: ignore[arg-type]
        except RuntimeError:
            log.warning("the event loop has ended before the engine")

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for sequence, outcome in outcomes:
            mailbox = self._mailboxes.get(sequence.number)
            if mailbox is not None:
                mailbox.put(outcome)

    async def died(self) -> None:
        """Return when the model thread has died: what has come of its model or its device, only a new process mends."""
        await self._died.wait()

    def _die(self, why: str) -> None:
        self._fail_all(why)
        self._died.set()

    def _fail_all(self, why: str) -> None:
        self.alive = False
        for mailbox in self._mailboxes.values():
            mailbox.put(EngineUnavailable(why))
