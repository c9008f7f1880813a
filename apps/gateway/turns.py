"""The responses of one session that are under way: begun, read back from the log, cancelled, and ended in any case."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator

from apps.gateway import events
from apps.gateway.answer import GAP, Answer, Running
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outgoing import Outgoing
from apps.gateway.terms import Terms
from pipeline.errors import MessageTooLarge
from pipeline.headers import DEADLINE, REPLY_TO, TENANT, TRACE, TURN
from pipeline.messages import Cancel, Delta, Finished, Message, Problem, Told, Turn
from pipeline.stage import LATE
from pipeline.topics import CONTROL, REPLIES, TURNS

log = logging.getLogger(__name__)

MOST_HELD = 2000
"""Records that may come before their turn's `response.created`."""
MOST_UNKNOWN = 16
"""Turns that may come before theirs, in a log that is read again."""
MOST_OVER = 32
"""Turns that are remembered to be over."""

UNTAKEN = Problem("log_unavailable", "the log could not be reached, so nobody answers; try again", retry_after=5.0)


class Turns:
    """The responses of session `session`. Times are in seconds of one clock.

    It begins as one that reads what others have written; from `go_live` on it also says what is to be said.
    """

    def __init__(self, session: str, terms: Terms, talk: Talk) -> None:
        self._session, self._partition, self._tenant = session, terms.partition, terms.tenant
        self._settings, self._ended = terms.settings, terms.turn_ended
        self._talk = talk
        self._metrics: GatewayMetrics | None = None
        self._answers: dict[str, Answer] = {}
        self._held: dict[str, list[Message]] = {}
        self._over: deque[str] = deque(maxlen=MOST_OVER)
        self._ending: dict[str, float] = {}
        self.outgoing: list[Outgoing] = []

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(tuple(self._answers.values()))

    def get(self, response_id: str) -> Answer | None:
        """The response with this id, if it is under way."""
        return self._answers.get(response_id)

    @property
    def current(self) -> Answer | None:
        """The one response that writes to the conversation."""
        return next((answer for answer in self._answers.values() if answer.in_conversation), None)

    @property
    def beside(self) -> int:
        """The number of those that do not."""
        return sum(not answer.in_conversation for answer in self._answers.values())

    # -- snapshots

    @property
    def waits(self) -> bool:
        """Whether something was read that cannot be told yet."""
        return bool(self._held)

    @property
    def over(self) -> tuple[str, ...]:
        """Turns that ended lately."""
        return tuple(self._over)

    def running(self, now: float) -> tuple[Running, ...]:
        """The responses that were told to begin."""
        return tuple(answer.running(now) for answer in self if answer.told)

    def restore(self, running: tuple[Running, ...], over: tuple[str, ...], now: float) -> None:
        """Go on from a snapshot."""
        self._answers = {one.view["id"]: Answer.restored(one, now) for one in running}
        self._over.extend(over)

    def go_live(self, metrics: GatewayMetrics) -> None:
        """Say from now on what is to be said."""
        self._metrics = metrics
        metrics.active.inc(len(self))
        self._held = {turn: held for turn, held in self._held.items() if turn in self._answers}

    # -- begin and cancel

    def start(self, answer: Answer, turn: Turn, acknowledgement: Told, trace: str) -> None:
        """Hand a turn to the stages, and acknowledge it.

        In this order: what is acknowledged will be answered, also if this process ends between the two.
        """
        assert self._metrics is not None
        self._answers[answer.id] = answer
        self._metrics.active.inc()
        headers = {
            REPLY_TO: str(self._partition),
            TURN: answer.id,
            DEADLINE: f"{time.time() + self._settings.turn_timeout_s:.3f}",
            TENANT: self._tenant,
            TRACE: trace,
        }
        key = self._session if answer.in_conversation else f"{self._session}/{answer.id}"
        self.outgoing.append(Outgoing(TURNS, turn, key, headers=headers))
        self._reply(acknowledgement)

    def cancel(self, answer: Answer, now: float, reason: str = "client_cancelled") -> None:
        """Ask the stages to give the turn up; they say when they have."""
        if answer.cancelled:
            return
        answer.cancelled, answer.cancel_reason = True, reason
        answer.ends_by = min(answer.ends_by, now)
        self._give_up(answer, reason)

    def drop(self, now: float) -> None:
        """Ask the stages to give all turns up, and forget them."""
        for answer in self:
            self.cancel(answer, now)
            self._forget(answer, "dropped")

    def let_go(self, now: float) -> None:
        """Forget all turns: they are another's now; what nobody was told of is given up."""
        for answer in self:
            if not answer.told:
                self.cancel(answer, now)
            self._forget(answer, "moved")

    def undelivered(self, sent: Outgoing, why: Exception, now: float) -> None:
        """A record did not reach the log: a turn ends as failed, and so does what nobody can be told of."""
        answer = self._answers.get(sent.message.turn)
        if answer is None or sent.topic is CONTROL:
            return
        if sent.topic is REPLIES:
            self._forget(answer, "undelivered")
            return
        too_large = isinstance(why, MessageTooLarge)
        self._fail(answer, Problem("context_length_exceeded", str(why)) if too_large else UNTAKEN, now)

    # -- read

    def read(self, message: Message) -> list[Event]:
        """The events that what a stage says makes."""
        answer = self._answers.get(message.turn)
        if answer is not None and answer.told:
            return self._progress(answer, message)
        if answer is not None or self._may_come(message.turn):
            self._hold(message)
        elif self._metrics is not None:
            self._metrics.skipped.labels("turn is over").inc()
        return []

    def told(self, message: Told) -> list[Event]:
        """The events that the acknowledgement of a turn makes, and what came before it."""
        now = time.monotonic()
        if (answer := self._answers.get(message.turn)) is None:
            if self._metrics is not None:  # given up before its acknowledgement was in the log
                self._metrics.skipped.labels("turn is over").inc()
                return []
            ends_in = (message.ends_at or time.time()) - time.time()
            answer = Answer(message.events[0]["response"], asked_at=now, ends_by=now + ends_in)
            self._answers[answer.id] = answer
        answer.told, answer.follows = True, self._talk.told.ids
        made = list(message.events)
        for held in self._held.pop(answer.id, ()):
            made += self.read(held)
        return made

    def _may_come(self, turn: str) -> bool:
        """Whether a turn that is not known may still be acknowledged: one of ours would be known."""
        if self._metrics is not None or turn in self._over:
            return False
        return turn in self._held or len(self._held) < MOST_UNKNOWN

    def _hold(self, message: Message) -> None:
        held = self._held.setdefault(message.turn, [])
        if len(held) < MOST_HELD:
            held.append(message)
        elif isinstance(message, Finished):
            held[-1] = message  # a piece is missing now, so the end will say failed

    def _progress(self, answer: Answer, message: Message) -> list[Event]:
        if isinstance(message, Delta):
            return self._grow(answer, message)
        assert isinstance(message, Finished)
        return self._finish(answer, message)

    def _grow(self, answer: Answer, piece: Delta) -> list[Event]:
        broken = answer.broken
        text = answer.fresh(piece)
        if answer.broken and not broken and self._metrics is not None:
            log.error("%s %s: text before character %d is missing", self._session, answer.id, piece.at)
            self._fail(answer, GAP, time.monotonic())
        if not text:
            return []
        if answer.opened:
            return [answer.grow(text)]
        if self._metrics is not None:
            self._metrics.first_token.observe(max(0.0, time.monotonic() - answer.asked_at))
        opening, gone = self._open(answer)
        return [*opening, answer.grow(text), *map(events.deleted, gone)]

    def _open(self, answer: Answer) -> tuple[list[Event], list[str]]:
        previous, gone = None, list[str]()
        if answer.in_conversation:
            previous, gone = self._talk.begin(answer.item("in_progress"), answer.follows)
        return answer.open(previous), gone

    def _finish(self, answer: Answer, finished: Finished) -> list[Event]:
        if self._metrics is not None:
            self._ended(finished.problem)
        finished = answer.end(finished)
        made, gone = list[Event](), list[str]()
        if finished.status == "completed" and not answer.opened:
            made, gone = self._open(answer)
        kept = answer.item_id in self._talk.told
        made += answer.close(finished, kept=kept)
        if kept:
            gone += self._talk.finish(answer.item(events.item_status(finished)))
        self._forget(answer, finished.status)
        return [*made, *map(events.deleted, gone), answer.done(finished)]

    # -- end in any case

    def tick(self, now: float) -> bool:
        """End what should have ended; whether the log has lost an end, so that nobody will be told of it."""
        lost = False
        for answer in self:
            ending = self._ending.get(answer.id)
            if ending is not None and now > ending + 2 * self._settings.publish_timeout_s:
                log.error("%s %s: its end did not come back from the log", self._session, answer.id)
                self._forget(answer, "lost")
                lost = True
            elif ending is None and answer.broken:
                self._fail(answer, GAP, now)
            elif ending is None and now > answer.ends_by + self._settings.slack_s:
                self._end_for(answer, LATE, now)
        return lost

    def end(self, problem: Problem, now: float) -> None:
        """End all turns for a reason of the gateway's own."""
        for answer in self:
            if answer.id not in self._ending:
                self._end_for(answer, problem, now)

    def _end_for(self, answer: Answer, problem: Problem, now: float) -> None:
        if answer.cancelled:
            self._end(Finished(self._session, answer.id, status="cancelled", reason="cancelled"), now)
        else:
            self._fail(answer, problem, now)

    def _fail(self, answer: Answer, problem: Problem, now: float) -> None:
        self._end(Finished(self._session, answer.id, status="failed", problem=problem), now)
        if not answer.cancelled:
            self._give_up(answer, "failed")

    def _end(self, finished: Finished, now: float) -> None:
        """Say the end in the stages' stead. What counts is the first end that stands in the log."""
        self._ending.setdefault(finished.turn, now)
        self._reply(finished)

    def _give_up(self, answer: Answer, reason: str) -> None:
        self.outgoing.append(Outgoing(CONTROL, Cancel(self._session, answer.id, reason), self._session, partition=0))

    def _reply(self, message: Message) -> None:
        self.outgoing.append(Outgoing(REPLIES, message, self._session, partition=self._partition))

    def _forget(self, answer: Answer, status: str) -> None:
        del self._answers[answer.id]
        self._held.pop(answer.id, None)
        self._ending.pop(answer.id, None)
        self._over.append(answer.id)
        if self._metrics is not None:
            self._metrics.active.dec()
            self._metrics.turns.labels(status).inc()
            self._metrics.turn_seconds.observe(max(0.0, time.monotonic() - answer.asked_at))
