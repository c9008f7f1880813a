"""The responses of one session that are under way: begun, read back from the log, cancelled, and ended in any case."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator

from apps.gateway.answer import CLIENT, GAP, SPEECH, Answer, Running
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.held import Held
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outgoing import Outgoing
from apps.gateway.saying import Saying
from apps.gateway.speaking import Tracks
from apps.gateway.telling import Telling
from apps.gateway.terms import Terms
from pipeline.errors import MessageTooLarge
from pipeline.messages import Delta, Finished, Message, Problem, Told, Turn
from pipeline.stage import LATE
from pipeline.topics import CONTROL, REPLIES
from pipeline.voice import Spoken

log = logging.getLogger(__name__)

MOST_OVER = 32
"""Turns that are remembered to be over."""

UNTAKEN = Problem("log_unavailable", "the log could not be reached, so nobody answers; try again", retry_after=5.0)


class Turns:
    """The responses of session `session`. Times are in seconds of one clock.

    It begins as one that reads what others have written; from `go_live` on it also says what is to be said. `over` are
    turns that ended lately, `tracks` what was spoken of late, and `quiet_from` is when the last of it was heard.
    `silenced` is the one whose client says that it plays no more of it.
    """

    def __init__(self, session: str, terms: Terms, talk: Talk, say: Saying) -> None:
        self._session, self._say = session, say
        self._settings, self._ended = terms.settings, terms.turn_ended
        self._talk, self._telling = talk, Telling(talk)
        self._metrics: GatewayMetrics | None = None
        self._answers: dict[str, Answer] = {}
        self._held = Held()
        self.over: deque[str] = deque(maxlen=MOST_OVER)
        self._ending: dict[str, float] = {}
        self.tracks = Tracks()
        self.quiet_from: float | None = None
        self.silenced = ""

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(tuple(self._answers.values()))

    def get(self, response_id: str) -> Answer | None:
        """The response with this id, if it is under way."""
        return self._answers.get(response_id)

    def of(self, item_id: str) -> Answer | None:
        """The response whose answer is this item, if it is under way."""
        return next((answer for answer in self if answer.item_id == item_id), None)

    @property
    def spoke(self) -> bool:
        """Whether any answer was heard."""
        return bool(self.tracks) or any(answer.track and answer.track.position for answer in self)

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

    def running(self, now: float) -> tuple[Running, ...]:
        """The responses that were told to begin."""
        return tuple(answer.running(now) for answer in self if answer.told)

    def restore(self, running: tuple[Running, ...], over: tuple[str, ...], now: float) -> None:
        """Go on from a snapshot."""
        self._answers = {one.view["id"]: Answer.restored(one, now) for one in running}
        self.over.extend(over)

    def go_live(self, metrics: GatewayMetrics) -> None:
        """Say from now on what is to be said."""
        self._metrics = self._telling.metrics = metrics
        metrics.active.inc(len(self))
        for answer in self:
            if answer.cut:
                self.cancel(answer, time.monotonic(), answer.cut)
        self._held.keep(self._answers)

    # -- begin and cancel

    def start(self, answer: Answer, turn: Turn, acknowledgement: Told, trace: str) -> None:
        """Hand a turn to the stages, then acknowledge it: what is acknowledged will be answered in any case."""
        assert self._metrics is not None
        self._answers[answer.id] = answer
        self._metrics.active.inc()
        until = time.time() + self._settings.turn_timeout_s
        self._say.ask(turn, aside=not answer.in_conversation, ends_at=until, trace=trace)
        self._say.log(acknowledgement)

    def cancel(self, answer: Answer, now: float, reason: str = CLIENT) -> None:
        """Ask the stages to give the turn up; they say when they have."""
        if answer.cancelled:
            return
        answer.cancelled = True
        answer.ends_by = min(answer.ends_by, now)
        self._say.give_up(answer.id, reason)

    def cut(self, answer: Answer | None, reason: str, now: float) -> list[Event]:
        """No more is told of `answer`; returns its end, if all is known of that."""
        if answer is None or answer.cut:
            return []
        if not answer.told and not answer.cancelled:  # others do not know of it yet
            self._say.tell(cuts=(answer.id, reason))
        if self._metrics is not None:
            self._metrics.voice.interruptions.inc(reason == SPEECH)
            self.cancel(answer, now, reason)
        if not answer.told:
            return []
        answer.cut, answer.cut_at = reason, now
        return self._finish(answer, answer.finished) if answer.finished else []

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
            self._held.add(message)
        elif self._metrics is not None:
            self._metrics.skipped.labels("turn is over").inc()
        return []

    def told(self, message: Told) -> list[Event]:
        """The events that the acknowledgement of a turn makes, and what came before it."""
        if (answer := self._answers.get(message.turn)) is None:
            if self._metrics is not None:  # given up before its acknowledgement was in the log
                self._metrics.skipped.labels("turn is over").inc()
                return []
            answer = self._answers[message.turn] = Answer.told_to_begin(message)
        answer.told, answer.follows = True, self._talk.told.ids
        made = list(message.events)
        for held in self._held.pop(answer.id):
            made += self.read(held)
        return made

    def _may_come(self, turn: str) -> bool:
        """Whether a turn that is not known may still be acknowledged: one of ours would be known."""
        if self._metrics is not None or turn in self.over:
            return False
        return turn in self._held or not self._held.full

    def _progress(self, answer: Answer, message: Message) -> list[Event]:
        if isinstance(message, Finished):
            return self._finish(answer, message)
        broken = answer.broken
        if isinstance(message, Delta):
            made = self._telling.grow(answer, message)
        else:
            assert isinstance(message, Spoken)
            made = self._telling.sound(answer, message)
            self._wait_on(answer)
        if answer.broken and not broken and self._metrics is not None:
            log.error("%s %s: a piece of the answer is missing", self._session, answer.id)
            self._fail(answer, GAP, time.monotonic())
        if isinstance(message, Spoken) and message.last:
            made += self._voiced(answer, message.problem)
        return made

    def _voiced(self, answer: Answer, problem: Problem | None) -> list[Event]:
        """No more of the answer will be spoken."""
        if problem is not None:
            if answer.finished is None and self._metrics is not None:
                self._say.give_up(answer.id, "failed")
            return self._finish(answer, Finished(self._session, answer.id, status="failed", problem=problem))
        return self._finish(answer, answer.finished) if answer.finished else []

    def _finish(self, answer: Answer, finished: Finished) -> list[Event]:
        whole = finished.status in ("completed", "incomplete")
        if whole and not answer.spoken and not answer.cut:
            self._await_voice(answer, finished)
            return []
        if self._metrics is not None and answer.finished is None:
            self._ended(finished.problem)
        finished = answer.end(finished)
        made = self._telling.end(answer, finished)
        self._forget(answer, finished.status)
        return made

    def _await_voice(self, answer: Answer, finished: Finished) -> None:
        """The text of an answer is there, but it is not spoken to its end yet."""
        if answer.finished is not None:
            return
        answer.finished = finished
        if self._metrics is not None:
            self._ended(finished.problem)
        self._wait_on(answer)

    def _wait_on(self, answer: Answer) -> None:
        """Give the next piece of an answer's audio its time."""
        if answer.finished is not None and not answer.cancelled:
            answer.ends_by = time.monotonic() + self._settings.audio.speech_patience_s

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
            self._say.give_up(answer.id, "failed")

    def _end(self, finished: Finished, now: float) -> None:
        """Say the end in the stages' stead. What counts is the first end that stands in the log."""
        self._ending.setdefault(finished.turn, now)
        self._say.log(finished)

    def _forget(self, answer: Answer, status: str) -> None:
        del self._answers[answer.id]
        if answer.track is not None and answer.track.position:
            self.tracks.add(answer.item_id, answer.track)
        self.quiet_from = answer.quiet_from(time.monotonic())
        self._held.pop(answer.id)
        self._ending.pop(answer.id, None)
        self.over.append(answer.id)
        if self._metrics is not None:
            self._metrics.ended(answer, status, time.monotonic())
