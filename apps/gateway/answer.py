"""One response on its way: what the stages say of a turn, turned into the events of its answer.

Text that was already seen is cut; text that is missing is told; there is exactly one end.
"""

from __future__ import annotations

import msgspec

from apps.gateway import events
from apps.gateway.events import Event, Place
from apps.gateway.items import Item
from apps.gateway.items import answer as answer_item
from pipeline.messages import Delta, Finished, Likelihood, Problem

GAP = Problem("answer_incomplete", "a piece of the answer was lost on its way")


class Running(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a response has come, for a snapshot. `ends_in` is in seconds from then on."""

    view: Event
    ends_in: float
    follows: tuple[str, ...] = ()
    previous: str | None = None
    cancelled: bool = False
    opened: bool = False
    broken: bool = False
    text: str = ""
    tokens: int = 0
    likelihoods: tuple[Likelihood, ...] = ()


class Answer:
    """The state of one response. `asked_at` and `ends_by` are in seconds of the gateway's clock.

    `follows` are the items that the conversation had when it was told to begin, after which the answer comes.
    """

    def __init__(self, view: Event, *, asked_at: float, ends_by: float) -> None:
        self.view = view
        self.id: str = view["id"]
        self.in_conversation = view["conversation_id"] is not None
        self.follows: tuple[str, ...] = ()
        self.previous: str | None = None
        self.asked_at, self.ends_by = asked_at, ends_by
        self.cancel_reason = "client_cancelled"
        self.cancelled = False
        self.told = False
        self.opened = False
        self.broken = False
        self._place = Place(self.id, "item_" + self.id.removeprefix("resp_"))
        self._texts: list[str] = []
        self._length = 0
        self._tokens = 0
        self._likelihoods: tuple[Likelihood, ...] = ()

    @classmethod
    def restored(cls, running: Running, now: float) -> Answer:
        """The response of a snapshot."""
        answer = cls(running.view, asked_at=now, ends_by=now + running.ends_in)
        answer.follows, answer.previous = running.follows, running.previous
        answer.cancelled, answer.opened, answer.broken = running.cancelled, running.opened, running.broken
        answer.told = True
        answer._keep(running.text)
        answer._tokens, answer._likelihoods = running.tokens, running.likelihoods
        return answer

    def running(self, now: float) -> Running:
        """How far it has come."""
        return Running(
            self.view,
            self.ends_by - now,
            self.follows,
            self.previous,
            self.cancelled,
            self.opened,
            self.broken,
            self.text,
            self._tokens,
            self._likelihoods,
        )

    @property
    def item_id(self) -> str:
        """The id of the answer's item; it follows from the response's, so that whoever reads the log finds the same."""
        return self._place.item_id

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    def item(self, status: str) -> Item:
        """The answer as an item of the conversation."""
        return answer_item(self.item_id, self.text, status)

    def fresh(self, piece: Delta) -> str:
        """What of `piece` was not seen yet; where text before it is missing, the answer is broken."""
        if piece.at > self._length:
            self.broken = True
        self._note(piece)
        return "" if self.broken else piece.text[self._length - piece.at :]

    def open(self, previous: str | None) -> list[Event]:
        """The answer begins, after item `previous`."""
        self.opened, self.previous = True, previous
        return events.opening(self._place, previous, in_conversation=self.in_conversation)

    def grow(self, text: str) -> Event:
        """The answer goes on."""
        self._keep(text)
        likelihoods, self._likelihoods = self._likelihoods, ()
        return events.delta(self._place, text, likelihoods)

    def _note(self, piece: Delta) -> None:
        """Keep the likelihoods of `piece` that were not seen yet; they go out with the next text."""
        known = self._tokens - (piece.index - len(piece.likelihoods))
        self._likelihoods += piece.likelihoods[max(0, known) :]
        self._tokens = max(self._tokens, piece.index)

    def _keep(self, text: str) -> None:
        self._texts.append(text)
        self._length += len(text)

    def end(self, finished: Finished) -> Finished:
        """How the answer ends: as `finished` says, unless text is missing."""
        lost = finished.status in ("completed", "incomplete") and (finished.length or 0) > self._length
        if lost or self.broken:
            return Finished(finished.session, finished.turn, status="failed", usage=finished.usage, problem=GAP)
        return finished

    def close(self, finished: Finished, *, kept: bool) -> list[Event]:
        """What there was of the answer is over; `kept` says whether the conversation still has its item."""
        if not self.opened:
            return []
        return events.closing(self._place, self.text, events.item_status(finished), self.previous, in_conversation=kept)

    def done(self, finished: Finished) -> Event:
        """The response is over."""
        output = [self.item(events.item_status(finished)).view] if self.opened else []
        return events.done(self.view, finished, output, self.cancel_reason)
