"""The brain of one session: what its client asks becomes messages for the log, what the log says becomes events.

Sans-I/O: knows no socket and no bus. `receive` and `tick` fill `outgoing`, `read` returns what the client is told.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from apps.gateway import commands as c
from apps.gateway import editing, events
from apps.gateway.account import Account, Position, Repeats, name_of
from apps.gateway.answer import Answer
from apps.gateway.config import MODALITIES, SessionConfig
from apps.gateway.context import check_metadata, context
from apps.gateway.conversation import Conversation, Talk
from apps.gateway.events import CONVERSATION, Event
from apps.gateway.items import new_id
from apps.gateway.memory import Memory
from apps.gateway.outgoing import Outgoing
from apps.gateway.protocols.realtime import error_event
from apps.gateway.refusal import LIMITED, RESTARTING, Refusal, shutting_down
from apps.gateway.terms import Terms
from apps.gateway.turns import Turns
from pipeline.messages import Claimed, Message, Problem, Snapshot, Told, Turn
from pipeline.telemetry import new_traceparent
from pipeline.topics import REPLIES


class Session:
    """A conversation and the turns in it. `name` stands for it in the log; in one partition nothing else may have it.

    A session is opened with `open`, or made of a snapshot with `restore` and claimed with `claim`. It is `ours` once
    that has been read back, and `lost` when somebody else has claimed it since.
    """

    def __init__(self, name: str, terms: Terms) -> None:
        self.id = name
        self.terms = terms
        self.settings = settings = terms.settings
        expires_at = int(time.time() + settings.max_session_s)
        self.config = SessionConfig(settings, session=name, model=terms.model, expires_at=expires_at)
        self.talk = Talk(max_items=settings.max_conversation_items, max_bytes=settings.max_conversation_bytes)
        self.turns = Turns(name, terms, self.talk)
        self.account = Account(terms.partition, terms.signer.stamp(terms.tenant, name), self.talk, self.turns)
        self.owner = secrets.token_hex(8)
        self.ours = self.lost = self._opened = False
        self._asked = ""
        self._repeats = Repeats({})
        self._on_the_way = 0
        self.memory = Memory()

    @property
    def conversation(self) -> Conversation:
        """The conversation as the client has been told of it."""
        return self.talk.told

    @property
    def expires_at(self) -> int:
        """When the session must end, in seconds since 1970."""
        return int(self.account.view["expires_at"])

    # -- whose it is

    @property
    def begun(self) -> bool:
        """Whether it is known whose it is: from then on it may say something."""
        return self._opened or self.ours

    def open(self) -> None:
        """Begin, and tell the client of its session."""
        self._begin()
        self.tell(events.session_event("session.created", self.config.view))

    def _begin(self) -> None:
        account = self.account
        account.model, account.view, account.conversation = self.terms.asked, self.config.view, new_id(CONVERSATION)
        account.holder, self._opened = self.owner, True
        self._log(Snapshot(self.id, "", self.owner, account.state()))
        self.turns.go_live(self.terms.metrics)

    def restore(self, snapshot: Snapshot, at: Position) -> None:
        """Begin with what a snapshot says, which stands at `at`."""
        self.account.restore(snapshot, at)

    def claim(self) -> None:
        """Make it ours: from where that stands in the log, nobody else can say anything."""
        self._log(Claimed(self.id, "", self.owner))

    def _go_live(self) -> None:
        """All that counts of what others did has been read."""
        self.config.view = self.account.view
        self.talk.settle()
        self.turns.go_live(self.terms.metrics)
        self._repeats = Repeats(self.account.seen)

    # -- what the client asks

    def receive(self, command: c.Command) -> None:
        """Carry a command out, or tell the client why not; not again what was done before it came back."""
        asked = name_of(command)
        if self._repeats.has(asked):
            self.terms.metrics.repeated.inc()
            return
        self._asked = asked
        try:
            self._carry_out(command)
        except Refusal as refusal:
            self._asked = ""
            self.refuse(refusal.about(command.event_id))

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client that something is not done."""
        self.terms.metrics.errors.labels(refusal.code).inc()
        self.tell(error_event(refusal))

    def _carry_out(self, command: c.Command) -> None:
        match command:
            case c.SessionUpdate():
                self.config.update(command.session)
                self.tell(events.session_event("session.updated", self.config.view))
            case c.ItemCreate():
                self.create(command)
            case c.ItemDelete():
                self.tell(editing.delete(self.talk.draft, command))
            case c.ItemRetrieve():
                item = editing.known(self.talk.draft, command.item_id, "retrieve")
                self.tell({"type": "conversation.item.retrieved", "item": item.view})
            case c.ItemTruncate():
                raise editing.no_truncation(self.talk.draft, command)
            case c.ResponseCreate():
                self.respond(command.response or c.ResponseOptions())
            case c.ResponseCancel():
                self._cancel(command.response_id)
            case _:
                raise editing.no_audio(command)

    def create(self, command: c.ItemCreate) -> None:
        """Add an item.

        Raises:
            Refusal: it cannot be added.
        """
        coming = [answer.item_id for answer in self.turns]
        self.tell(*editing.create(self.talk.draft, command, coming, max_text=self.settings.max_text_bytes))

    # -- responses

    def check_open(self) -> None:
        """Begin nothing while the gateway stops.

        Raises:
            Refusal: it does.
        """
        if self.terms.draining():
            raise shutting_down()

    def respond(self, options: c.ResponseOptions) -> None:
        """Begin a response.

        Raises:
            Refusal: it cannot be begun.
        """
        self.check_open()
        beside = options.conversation == "none"
        if not beside and (current := self.turns.current):
            why = f"the conversation has an active response already: {current.id}; wait until it is done, or cancel it"
            raise Refusal("conversation_already_has_active_response", why)
        if beside and self.turns.beside >= self.settings.max_responses - 1:
            why = f"{self.turns.beside} responses are under way beside the conversation, which is the most that may be"
            raise Refusal("too_many_responses", why, kind=LIMITED, retry_after=1.0)
        check_metadata(options.metadata)
        sampling = self.config.sampling(options)
        said = context(self.config, self.talk.draft, self.settings, options)
        self.terms.admit_turn()
        now = time.monotonic()
        view = events.response(
            new_id("resp"),
            conversation=None if beside else self.account.conversation,
            metadata=options.metadata,
            limit=self.config.limit(options),
            modalities=MODALITIES,
        )
        timeout = self.settings.turn_timeout_s
        answer = Answer(view, asked_at=now, ends_by=now + timeout)
        acknowledgement = (
            {"type": "response.created", "response": view},
            {"type": "rate_limits.updated", "rate_limits": self.terms.rates()},
        )
        told = self._told(acknowledgement, turn=answer.id, ends_at=time.time() + timeout)
        turn = Turn(self.id, answer.id, conversation=said, sampling=sampling, model=self.account.model)
        self.turns.start(answer, turn, told, self.terms.trace or new_traceparent())

    def _cancel(self, response_id: str | None) -> None:
        answer = self.turns.current if response_id is None else self.turns.get(response_id)
        if answer is None:
            why = "Cancellation failed: " + (
                "no active response found" if response_id is None else f"{response_id!r} is not active"
            )
            raise Refusal("response_cancel_not_active", why, param=None if response_id is None else "response_id")
        self.turns.cancel(answer, time.monotonic())
        if self._asked:
            self.tell()  # nothing, but so it is remembered that this was done

    def abandon(self) -> None:
        """Give all turns up: the client has gone and did not come back."""
        for answer in self.turns:
            self.turns.cancel(answer, time.monotonic())

    def end_turns(self) -> None:
        """End all turns, and tell the client: the gateway stops."""
        self.turns.end(Problem("shutting_down", RESTARTING, retry_after=2.0), time.monotonic())

    def drop(self) -> None:
        """Give all turns up, and forget them: nobody will be told how they end."""
        self.turns.drop(time.monotonic())

    # -- what the log says

    def read(self, at: Position, message: Message, *, known: bool = False) -> list[Event]:
        """The events that a record of the session makes; none where the client has got them (`known`).

        Raises:
            msgspec.DecodeError: it is of another version.
        """
        if isinstance(message, Claimed) or (isinstance(message, Snapshot) and message.at is None):
            if message.owner == self.owner:
                return self._come_in(at, message)
            if self._opened and not self.ours:
                return []  # an earlier session of that name, before ours begins
            if self.ours or isinstance(message, Snapshot):
                return self._let_go()
        if isinstance(message, Snapshot):
            self.memory.read(message, self.owner)
        made = self.account.read(at, message, known=known)
        if isinstance(message, Told) and message.owner == self.owner:
            self._on_the_way = max(0, self._on_the_way - 1)
            if not self._on_the_way:
                self.talk.settle()
        return made

    def _come_in(self, at: Position, message: Message) -> list[Event]:
        made = self.account.read(at, message)
        self.ours = True
        if isinstance(message, Claimed):
            self._go_live()
        return made

    def _let_go(self) -> list[Event]:
        self.lost = True
        self.turns.let_go(time.monotonic())
        return []

    def tick(self, now: float) -> bool:
        """End what should have ended; whether the log has lost an end."""
        return self.turns.tick(now)

    def remember(self, at: int, distance: int) -> None:
        """Put a snapshot into the log where one is due, all having been read up to offset `at`.

        One is due where as much came since the last one as that had, or where it stands `distance` records back.
        """
        account = self.account
        if self.ours and not self.turns.waits and self.memory.due(account.since, at + 1 - account.base, distance):
            state = account.state()
            self.memory.made(state)
            self._log(Snapshot(self.id, "", self.owner, state, at, account.last))

    def undelivered(self, sent: Outgoing, why: Exception) -> None:
        """A record did not reach the log."""
        if isinstance(sent.message, Snapshot):
            self.memory.lost()
            return
        if isinstance(sent.message, Told):
            self._on_the_way = 0
            self.talk.settle()
        self.turns.undelivered(sent, why, time.monotonic())

    def outgoing(self) -> list[Outgoing]:
        """What is to be handed to the log since the last call, in order."""
        waiting = self.turns.outgoing
        self.turns.outgoing = []
        return waiting

    def tell(self, *told: Event) -> None:
        """Put events into the log, from where the client gets them."""
        self._log(self._told(told))

    def _told(self, told: tuple[Event, ...], **more: Any) -> Told:
        asked, self._asked = self._asked, ""
        self._on_the_way += 1
        return Told(self.id, more.pop("turn", ""), told, self.owner, asked, **more)

    def _log(self, message: Message) -> None:
        self.turns.outgoing.append(Outgoing(REPLIES, message, self.id, self.terms.partition))
