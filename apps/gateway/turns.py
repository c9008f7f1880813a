"""The responses of one session that are under way: begun, read back from the log, cancelled, and ended in any case."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from apps.gateway import events
from apps.gateway.answer import GAP, LATE, Answer
from apps.gateway.conversation import ROOT, Conversation
from apps.gateway.events import Event
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outgoing import Outgoing
from apps.gateway.settings import GatewaySettings
from pipeline.errors import MessageTooLarge
from pipeline.headers import DEADLINE, REPLY_TO, TENANT, TRACE, TURN
from pipeline.messages import Cancel, Delta, Finished, Message, Problem, Told, Turn
from pipeline.topics import CONTROL, REPLIES, TURNS

log = logging.getLogger(__name__)

MOST_HELD = 2000
"""Records that may come before their turn's `response.created`."""

UNTAKEN = Problem("log_unavailable", "the log could not be reached, so nobody answers; try again", retry_after=5.0)


class Position(NamedTuple):
    """Where a record stands in `replies`."""

    partition: int
    offset: int

    def stamped(self, told: Iterable[Event]) -> list[Event]:
        """The events made of the record there, each with its id."""
        return [{"event_id": f"event_{self.partition}_{self.offset}_{n}", **event} for n, event in enumerate(told)]


class Turns:
    """The responses of session `session` of `tenant`, whose replies go to `partition`. Times are in s of one clock."""

    def __init__(
        self,
        session: str,
        partition: int,
        conversation: Conversation,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        tenant: str,
    ) -> None:
        self._session, self._partition, self._tenant = session, partition, tenant
        self._conversation = conversation
        self._settings, self._metrics = settings, metrics
        self._answers: dict[str, Answer] = {}
        self._held: dict[str, list[tuple[Position, Message]]] = {}
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

    # -- begin and cancel

    def start(self, answer: Answer, turn: Turn, acknowledgement: tuple[Event, ...], trace: str) -> None:
        """Acknowledge a turn and hand it to the stages."""
        self._answers[answer.id] = answer
        self._metrics.active.inc()
        self._reply(Told(self._session, answer.id, events=acknowledgement))
        headers = {
            REPLY_TO: str(self._partition),
            TURN: answer.id,
            DEADLINE: f"{time.time() + self._settings.turn_timeout_s:.3f}",
            TENANT: self._tenant,
            TRACE: trace,
        }
        key = self._session if answer.in_conversation else f"{self._session}/{answer.id}"
        self.outgoing.append(Outgoing(TURNS, turn, key, headers=headers))

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

    def read(self, at: Position, message: Message) -> list[Event]:
        """The events that a record of `replies` makes, with their ids."""
        if isinstance(message, Told):
            return self._told(at, message)
        answer = self._answers.get(message.turn)
        if answer is None:
            self._metrics.skipped.labels("turn is over").inc()
            return []
        if not answer.told:
            self._hold(answer, at, message)
            return []
        return at.stamped(self._progress(answer, message))

    def _told(self, at: Position, message: Told) -> list[Event]:
        if not message.turn:
            return at.stamped(message.events)
        if (answer := self._answers.get(message.turn)) is None:  # given up before its acknowledgement was in the log
            self._metrics.skipped.labels("turn is over").inc()
            return []
        answer.told = True
        made = at.stamped(message.events)
        for then, held in self._held.pop(answer.id, ()):
            made += self.read(then, held)
        return made

    def _hold(self, answer: Answer, at: Position, message: Message) -> None:
        held = self._held.setdefault(answer.id, [])
        if len(held) < MOST_HELD:
            held.append((at, message))
        elif isinstance(message, Finished):
            held[-1] = (at, message)  # a piece is missing now, so the end will say failed

    def _progress(self, answer: Answer, message: Message) -> list[Event]:
        if isinstance(message, Delta):
            return self._grow(answer, message)
        assert isinstance(message, Finished)
        return self._finish(answer, message)

    def _grow(self, answer: Answer, piece: Delta) -> list[Event]:
        broken = answer.broken
        text = answer.fresh(piece)
        if answer.broken and not broken:
            log.error("%s %s: text before character %d is missing", self._session, answer.id, piece.at)
            self._fail(answer, GAP, time.monotonic())
        if not text:
            return []
        if answer.opened:
            return [answer.grow(text)]
        self._metrics.first_token.observe(max(0.0, time.monotonic() - answer.asked_at))
        return [*self._open(answer), answer.grow(text), *self._forgotten()]

    def _open(self, answer: Answer) -> list[Event]:
        previous = None
        if answer.in_conversation:
            after = next((item for item in reversed(answer.follows) if item in self._conversation), ROOT)
            previous = self._conversation.insert(answer.item("in_progress"), after=after)
        return answer.open(previous)

    def _finish(self, answer: Answer, finished: Finished) -> list[Event]:
        finished = answer.end(finished)
        made = self._open(answer) if finished.status == "completed" and not answer.opened else []
        kept = answer.item_id in self._conversation
        made += answer.close(finished, kept=kept)
        if kept:
            self._conversation.replace(answer.item(events.item_status(finished)))
        self._forget(answer, finished.status)
        return [*made, *self._forgotten(), answer.done(finished)]

    def _forgotten(self) -> list[Event]:
        return [events.deleted(item) for item in self._conversation.forgotten()]

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
        self._metrics.active.dec()
        self._metrics.turns.labels(status).inc()
        self._metrics.turn_seconds.observe(max(0.0, time.monotonic() - answer.asked_at))
