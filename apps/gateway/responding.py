"""Begins the responses of a session: what is asked for is checked, and waits where something has to come first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from apps.gateway import commands as c
from apps.gateway import events, voices
from apps.gateway.account import Account
from apps.gateway.answer import CLIENT, Answer
from apps.gateway.config import SessionConfig
from apps.gateway.context import check_metadata, context
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.items import Item, new_id, untranscribed
from apps.gateway.protocols.realtime import error_event
from apps.gateway.refusal import LIMITED, Refusal, shutting_down
from apps.gateway.saying import Saying
from apps.gateway.terms import Terms
from apps.gateway.turns import Turns
from apps.gateway.waiting import WANTED
from pipeline.messages import Finished, Turn, Voice
from pipeline.telemetry import new_traceparent


class Responding:
    """Begins responses in `turns`, from what is said in `talk`."""

    def __init__(
        self, session: str, terms: Terms, config: SessionConfig, talk: Talk, turns: Turns, account: Account, say: Saying
    ) -> None:
        self._session, self._terms, self._config = session, terms, config
        self._talk, self._turns, self._account, self._say = talk, turns, account, say
        self._serving: dict[str, Any] | None = None
        self._coming: dict[str, Any] | None = None
        self._dropped: dict[str, Any] | None = None
        self._waiting_on = account.ears.waiting
        self._beside: list[dict[str, Any]] = []

    @property
    def _waiting(self) -> dict[str, Any] | None:
        """What was asked for and waits, also while that is still on its way into the log."""
        if not self._say.on_the_way:
            self._coming = self._dropped = None
        wanted = self._waiting_on.wanted
        return self._coming or (None if wanted == self._dropped else wanted)

    def check_open(self) -> None:
        """Begin nothing while the gateway stops.

        Raises:
            Refusal: it does.
        """
        if self._terms.draining():
            raise shutting_down()

    def ask(self, command: c.ResponseCreate) -> None:
        """Begin a response, or let it wait for what was said before, or for the end of one that is given up.

        Raises:
            Refusal: it cannot be begun.
        """
        self.check_open()
        if self._config.transcription:
            raise Refusal("invalid_value", "this session only transcribes: it makes no responses", param="type")
        options = command.response or c.ResponseOptions()
        self._turns.silenced = ""
        if options.conversation == "none":
            self._ask_beside(command, options)
            return
        current = self._turns.current
        if not (self._unheard or (current and current.cancelled)):
            self.begin(options)
            return
        waiting = self._waiting
        if (current and not current.cancelled) or (waiting and waiting != WANTED):
            raise _active(current.id if current else "it waits for what was said before")
        check_metadata(options.metadata)
        self._config.sampling(options)
        self._coming = msgspec.to_builtins(command)
        self._say.tell(wanted=self._coming)

    def _ask_beside(self, command: c.ResponseCreate, options: c.ResponseOptions) -> None:
        """Begin a response beside the conversation, once it is known what is said in what it is made from."""
        if not any(untranscribed(item) for item in self._made_from(options)):
            self.begin(options)
            return
        self._check_room(beside=True, waiting=len(self._waiting_on.beside))
        check_metadata(options.metadata)
        self._config.sampling(options)
        self._say.tell(wanted=msgspec.to_builtins(command), beside=True)

    def _made_from(self, options: c.ResponseOptions) -> Iterable[Item]:
        """The items of the conversation that a response is made from."""
        if options.input is None:
            return self._talk.draft
        known = (self._talk.draft.get(one.id) for one in options.input if isinstance(one, c.ReferenceItem))
        return (item for item in known if item is not None)

    @property
    def _unheard(self) -> bool:
        """Whether something was said, or is on its way into the log, of which it is not known what it is."""
        return any(untranscribed(item) for item in self._talk.draft)

    def go_on(self) -> None:
        """Begin the responses that waited, if nothing has to come first any more."""
        self._go_on_beside()
        ears, wanted = self._account.ears, self._waiting_on.wanted
        if wanted is None or wanted is self._serving or not self._waiting:
            return
        if self._turns.current is not None or self._unheard:
            return
        if wanted == WANTED and ears.speaking and voices.interrupts(ears.view):
            return
        self._serving = wanted
        self._serve(wanted, beside=False)

    def _go_on_beside(self) -> None:
        waiting = self._waiting_on.beside
        self._beside = [one for one in self._beside if any(one is other for other in waiting)]
        for wanted in [*waiting][len(self._beside) :]:
            command = msgspec.convert(wanted, c.ResponseCreate)
            if any(untranscribed(item) for item in self._made_from(command.response or c.ResponseOptions())):
                return
            self._beside.append(wanted)
            self._serve(wanted, beside=True)

    def _serve(self, wanted: dict[str, Any], *, beside: bool) -> None:
        """Begin a response that waited; what cannot begin any more is told, and waits no longer."""
        command = msgspec.convert(wanted, c.ResponseCreate)
        heard_at = None if beside else self._account.ears.last_ended_at
        try:
            self.check_open()
            self.begin(command.response or c.ResponseOptions(), heard_at=heard_at, waited=True)
        except Refusal as refusal:
            self._terms.metrics.errors.labels(refusal.code).inc()
            self._say.tell(error_event(refusal.about(command.event_id)), served=True, beside=beside)

    def begin(self, options: c.ResponseOptions, *, heard_at: float | None = None, waited: bool = False) -> None:
        """Begin a response now; `heard_at` is when that ended which it answers, and `waited` says that it did.

        Raises:
            Refusal: it cannot be begun.
        """
        beside = options.conversation == "none"
        self._check_room(beside=beside, waiting=0 if waited else len(self._waiting_on.beside))
        check_metadata(options.metadata)
        sampling = self._config.sampling(options)
        said = context(self._config, self._talk.draft, self._terms.settings, options)
        self._terms.admit_turn()
        self._turns.silenced = ""
        voice = voices.voice(self._config.view, options, speaks=self._config.speaks)
        view = self._view(options, voice)
        timeout = self._terms.settings.turn_timeout_s
        now = time.monotonic()
        answer = Answer(view, asked_at=now, ends_by=now + timeout)
        answer.heard_at = heard_at
        acknowledgement = (
            {"type": "response.created", "response": view},
            {"type": "rate_limits.updated", "rate_limits": self._terms.rates()},
        )
        served = waited if beside else self._waiting_on.wanted is not None
        more = {"ends_at": time.time() + timeout, "served": served, "beside": beside and waited}
        told = self._say.told(acknowledgement, turn=answer.id, **more)
        turn = Turn(self._session, answer.id, said, sampling=sampling, model=self._account.model, voice=voice)
        self._turns.start(answer, turn, told, self._terms.trace or new_traceparent())

    def _view(self, options: c.ResponseOptions, voice: Voice | None) -> Event:
        """What a client is shown of a new response."""
        return events.response(
            new_id("resp"),
            conversation=None if options.conversation == "none" else self._account.conversation,
            metadata=options.metadata,
            limit=self._config.limit(options),
            audio=voices.shown(voice) if voice else None,
        )

    def _check_room(self, *, beside: bool, waiting: int) -> None:
        if not beside and (current := self._turns.current):
            raise _active(current.id)
        if beside and (count := self._turns.beside + waiting) >= self._terms.settings.max_responses - 1:
            why = f"{count} responses are under way beside the conversation, which is the most that may be"
            raise Refusal("too_many_responses", why, kind=LIMITED, retry_after=1.0)

    def cancel(self, response_id: str | None) -> None:
        """Give a response up, also one that waits.

        Raises:
            Refusal: there is none.
        """
        answer = self._turns.current if response_id is None else self._turns.get(response_id)
        if answer is None and self._turns.silenced and response_id in (None, self._turns.silenced):
            self._turns.silenced = ""  # its client cancels what has ended because it was truncated
            return
        if answer is None and response_id is None and (waiting := self._waiting):
            self._drop(waiting)
            return
        if answer is None:
            why = "Cancellation failed: " + (
                "no active response found" if response_id is None else f"{response_id!r} is not active"
            )
            raise Refusal("response_cancel_not_active", why, param=None if response_id is None else "response_id")
        self._say.tell(cuts=(answer.id, CLIENT))
        self._turns.cancel(answer, time.monotonic())

    def _drop(self, waiting: dict[str, Any]) -> None:
        """Give up what waits. Who has asked for it hears of a response that was begun and cancelled."""
        self._dropped, self._coming = waiting, None
        if waiting == WANTED:
            self._say.tell(served=True)
            return
        options = msgspec.convert(waiting, c.ResponseCreate).response or c.ResponseOptions()
        view = self._view(options, voices.voice(self._config.view, options, speaks=self._config.speaks))
        finished = Finished(self._session, view["id"], status="cancelled", reason="cancelled")
        created = {"type": "response.created", "response": view}
        self._say.tell(created, events.done(view, finished, [], CLIENT), served=True)


def _active(current: str) -> Refusal:
    why = f"the conversation has an active response already: {current}; wait until it is done, or cancel it"
    return Refusal("conversation_already_has_active_response", why)
