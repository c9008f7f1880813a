"""The brain of one session: what its client asks becomes messages for the log, what the log says becomes events.

Sans-I/O: knows no socket and no bus. `receive` and `tick` fill `outgoing`, `read` returns what the client is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apps.gateway import commands as c
from apps.gateway import events
from apps.gateway.answer import Answer
from apps.gateway.config import MODALITIES, SessionConfig
from apps.gateway.conversation import ROOT, Conversation
from apps.gateway.events import CONVERSATION, Event
from apps.gateway.items import Item, accepted, new_id
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outgoing import Outgoing
from apps.gateway.protocols.realtime import error_event
from apps.gateway.refusal import LIMITED, RESTARTING, Refusal, shutting_down
from apps.gateway.settings import GatewaySettings
from apps.gateway.tenants import OF_ALL
from apps.gateway.turns import Position, Turns
from pipeline.messages import Message, Problem, Told, Turn, Utterance
from pipeline.telemetry import new_traceparent
from pipeline.topics import REPLIES

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512

Rates = Callable[[], list[dict[str, Any]]]
"""The client's rate limits, as `rate_limits.updated` shows them."""


@dataclass(frozen=True)
class Terms:
    """What a session is opened with.

    `model` is said to answer it, and `asked` is what the stages are asked for (None: whichever is theirs); `partition`
    is the one of `replies` where it reads back what its client is told; `trace` is the W3C trace context of whoever
    opened it, if there is one; `draining` says whether nothing new is to begin; `tenant` is whose it is; `admit_turn`
    refuses a turn where its tenant has had its share.
    """

    model: str
    partition: int
    settings: GatewaySettings
    metrics: GatewayMetrics
    rates: Rates
    asked: str | None = None
    trace: str | None = None
    draining: Callable[[], bool] = lambda: False
    tenant: str = OF_ALL
    admit_turn: Callable[[], None] = lambda: None


class Session:
    """A conversation and the turns in it. `name` stands for it in the log; nothing else may have the same."""

    def __init__(self, name: str, terms: Terms) -> None:
        self.id = name
        self.terms = terms
        self.settings = settings = terms.settings
        expires_at = int(time.time() + settings.max_session_s)
        self.config = SessionConfig(settings, session=name, model=terms.model, expires_at=expires_at)
        self.conversation = Conversation(
            max_items=settings.max_conversation_items, max_bytes=settings.max_conversation_bytes
        )
        self.turns = Turns(name, terms.partition, self.conversation, settings, terms.metrics, terms.tenant)
        self._conversation_id = new_id(CONVERSATION)

    # -- what the client asks

    def open(self) -> None:
        """Tell the client of its session."""
        self.tell(events.session_event("session.created", self.config.view))

    def receive(self, command: c.Command) -> None:
        """Carry a command out, or tell the client why not."""
        try:
            self._carry_out(command)
        except Refusal as refusal:
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
                self._known(command.item_id, "delete")
                self.conversation.delete(command.item_id)
                self.tell(events.deleted(command.item_id))
            case c.ItemRetrieve():
                item = self._known(command.item_id, "retrieve")
                self.tell({"type": "conversation.item.retrieved", "item": item.view})
            case c.ItemTruncate():
                self._truncate(command)
            case c.ResponseCreate():
                self.respond(command.response or c.ResponseOptions())
            case c.ResponseCancel():
                self._cancel(command.response_id)
            case _:
                raise _no_audio(command)

    # -- items

    def create(self, command: c.ItemCreate) -> None:
        """Add an item.

        Raises:
            Refusal: it cannot be added.
        """
        item = accepted(command.item, max_text=self.settings.max_text_bytes)
        if item.id == ROOT:
            raise Refusal("invalid_value", f"{ROOT!r} stands for the conversation's beginning", param="item.id")
        if item.id in self.conversation or any(item.id == answer.item_id for answer in self.turns):
            raise Refusal("item_already_exists", f"there is an item {item.id!r} already", param="item.id")
        after = command.previous_item_id
        if after not in (None, ROOT) and after not in self.conversation:
            why = f"there is no item {after!r} to add it after"
            raise Refusal("item_create_invalid_previous_item_id", why, param="previous_item_id")
        previous = self.conversation.insert(item, after=after)
        self.tell(
            events.item_event("conversation.item.added", item.view, previous),
            events.item_event("conversation.item.done", item.view, previous),
            *map(events.deleted, self.conversation.forgotten()),
        )

    def _known(self, item_id: str, verb: str) -> Item:
        if (item := self.conversation.get(item_id)) is None:
            raise Refusal(f"item_{verb}_invalid_item_id", f"there is no item {item_id!r}", param="item_id")
        return item

    def _truncate(self, command: c.ItemTruncate) -> None:
        self._known(command.item_id, "truncate")
        if command.audio_end_ms < 0:
            raise Refusal("integer_below_min_value", "audio_end_ms is at least 0", param="audio_end_ms")
        why = f"item {command.item_id!r} has no audio; only what was spoken can be truncated"
        raise Refusal("item_truncate_no_audio", why, param="item_id")

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
        _check_metadata(options.metadata)
        sampling = self.config.sampling(options)
        said = self._context(options)
        self.terms.admit_turn()
        now = time.monotonic()
        view = events.response(
            new_id("resp"),
            conversation=None if beside else self._conversation_id,
            metadata=options.metadata,
            limit=self.config.limit(options),
            modalities=MODALITIES,
        )
        answer = Answer(view, asked_at=now, ends_by=now + self.settings.turn_timeout_s, follows=self.conversation.ids)
        acknowledgement = (
            {"type": "response.created", "response": view},
            {"type": "rate_limits.updated", "rate_limits": self.terms.rates()},
        )
        turn = Turn(self.id, answer.id, conversation=said, sampling=sampling, model=self.terms.asked)
        self.turns.start(answer, turn, acknowledgement, self.terms.trace or new_traceparent())

    def _context(self, options: c.ResponseOptions) -> tuple[Utterance, ...]:
        """What the model is told: the system prompt, then the conversation or what the client put in its place.

        Where the last word is not the user's, the response's own instructions are what is to be answered: that is how
        clients let an assistant speak first.
        """
        said = self.conversation.utterances() if options.input is None else self._input(options.input)
        own = options.instructions
        if isinstance(own, str) and own.strip() and (not said or said[-1].role != "user"):
            return self._system(None) + said + (Utterance("user", own),)
        return self._system(options) + said

    def _system(self, options: c.ResponseOptions | None) -> tuple[Utterance, ...]:
        instructions = self.config.instructions(options)
        return (Utterance("system", instructions),) if instructions.strip() else ()

    def _input(self, given: list[c.NewItem | c.ReferenceItem]) -> tuple[Utterance, ...]:
        most = self.settings.max_text_bytes
        items = [self._item(item, f"response.input[{n}]", most) for n, item in enumerate(given)]
        if (size := sum(item.size for item in items)) > self.settings.max_conversation_bytes:
            why = f"the input has {size} bytes; at most {self.settings.max_conversation_bytes} are taken"
            raise Refusal("string_above_max_length", why, param="response.input")
        return tuple(item.utterance for item in items if item.text)

    def _item(self, item: c.NewItem | c.ReferenceItem, where: str, max_text: int) -> Item:
        if not isinstance(item, c.ReferenceItem):
            return accepted(item, max_text=max_text, where=where)
        if (known := self.conversation.get(item.id)) is None:
            raise Refusal("invalid_value", f"there is no item {item.id!r}", param=f"{where}.id")
        return known

    def _cancel(self, response_id: str | None) -> None:
        answer = self.turns.current if response_id is None else self.turns.get(response_id)
        if answer is None:
            why = "Cancellation failed: " + (
                "no active response found" if response_id is None else f"{response_id!r} is not active"
            )
            raise Refusal("response_cancel_not_active", why, param=None if response_id is None else "response_id")
        self.turns.cancel(answer, time.monotonic())

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

    def read(self, at: Position, message: Message) -> list[Event]:
        """The events that a record of the session makes."""
        return self.turns.read(at, message)

    def tick(self, now: float) -> bool:
        """End what should have ended; whether the log has lost an end."""
        return self.turns.tick(now)

    def undelivered(self, sent: Outgoing, why: Exception) -> None:
        """A record did not reach the log."""
        self.turns.undelivered(sent, why, time.monotonic())

    def outgoing(self) -> list[Outgoing]:
        """What is to be handed to the log since the last call, in order."""
        waiting = self.turns.outgoing
        self.turns.outgoing = []
        return waiting

    def tell(self, *told: Event) -> None:
        """Put events into the log, from where the client gets them."""
        self.turns.outgoing.append(Outgoing(REPLIES, Told(self.id, "", events=told), self.id, self.terms.partition))


def _no_audio(command: c.Command) -> Refusal:
    kind = str(command.__struct_config__.tag)
    return Refusal("audio_not_supported", f"{kind}: audio is not served yet; send text", param="type")


def _check_metadata(metadata: dict[str, str] | None) -> None:
    pairs = metadata or {}
    fits = len(pairs) <= MOST_PAIRS and all(
        len(key) <= LONGEST_KEY and len(value) <= LONGEST_VALUE for key, value in pairs.items()
    )
    if not fits:
        why = f"metadata has at most {MOST_PAIRS} pairs of {LONGEST_KEY} and {LONGEST_VALUE} characters"
        raise Refusal("invalid_value", why, param="response.metadata")
