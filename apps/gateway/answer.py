"""One response on its way: what the stages say of a turn, turned into the events of its answer.

Text that was already seen is cut; text that is missing is told; there is exactly one end.
"""

from __future__ import annotations

import time

import msgspec

from apps.gateway import events
from apps.gateway.events import Event, Place
from apps.gateway.items import Item
from apps.gateway.items import answer as answer_item
from apps.gateway.speaking import MS, Track
from apps.gateway.voices import encoding
from pipeline.messages import Delta, Finished, Likelihood, Problem, Told
from pipeline.voice import RATE, Spoken

GAP = Problem("answer_incomplete", "a piece of the answer was lost on its way")
CLIENT, SPEECH = "client_cancelled", "turn_detected"
"""Why an answer is cancelled: its client wants it, or the user speaks."""


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
    track: Track | None = None
    finished: Finished | None = None
    cut: str = ""
    kept: str | None = None


class Answer:
    """The state of one response. `asked_at` and `ends_by` are in seconds of the gateway's clock.

    `follows` are the items that the conversation had when it was told to begin, after which the answer comes; `length`
    is that of its text so far. One that is spoken has a `track`, and is `finished` before it has been spoken to its
    end. `cut` is why no more of it is told, if so; `kept` is what was heard of it by what its client says. `heard_at`
    is when that ended which it answers, `cut_at` when it was cut, and `sounded_at` when its audio began.
    """

    def __init__(self, view: Event, *, asked_at: float, ends_by: float) -> None:
        self.view = view
        self.id: str = view["id"]
        self.in_conversation = view["conversation_id"] is not None
        self.follows: tuple[str, ...] = ()
        self.previous: str | None = None
        self.asked_at, self.ends_by = asked_at, ends_by
        self.cancelled = False
        self.told = False
        self.opened = False
        self.broken = False
        self.cut = ""
        self.finished: Finished | None = None
        self.kept: str | None = None
        self.heard_at: float | None = None
        self.cut_at: float | None = None
        self.sounded_at: float | None = None
        audio = view.get("audio")
        self.track = Track(encoding(audio["output"]["format"])) if audio else None
        self._place = Place(self.id, "item_" + self.id.removeprefix("resp_"), spoken=self.track is not None)
        self._texts: list[str] = []
        self.length = 0
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
        answer.track, answer.finished = running.track, running.finished
        answer.cut, answer.kept = running.cut, running.kept
        return answer

    @classmethod
    def told_to_begin(cls, told: Told) -> Answer:
        """The response that a gateway has acknowledged."""
        now = time.monotonic()
        ends_in = (told.ends_at or time.time()) - time.time()
        return cls(told.events[0]["response"], asked_at=now, ends_by=now + ends_in)

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
            self.track,
            self.finished,
            self.cut,
            self.kept,
        )

    @property
    def item_id(self) -> str:
        """The id of the answer's item; it follows from the response's, so that whoever reads the log finds the same."""
        return self._place.item_id

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    @property
    def spoken(self) -> bool:
        """Whether nothing more of it will be heard."""
        return self.track is None or self.track.over

    def quiet_from(self, now: float) -> float:
        """When it has been heard, if it is over now."""
        return now if self.track is None else max(now, (self.sounded_at or now) + self.track.position / RATE)

    def item(self, status: str, text: str | None = None) -> Item:
        """The answer as an item of the conversation."""
        return answer_item(self.item_id, self.text if text is None else text, status, spoken=self.track is not None)

    def ended(self, finished: Finished) -> Item:
        """The answer as the item that it is in the end: what was spoken, without what could not be heard any more."""
        text = self.kept
        cut = finished.status == "cancelled" or (finished.status == "failed" and self.track and self.track.position)
        if text is None and self.track is not None and cut:
            text = self.track.words(self.text, self.track.position)
        return self.item(events.item_status(finished), text)

    def fresh(self, piece: Delta) -> str:
        """What of `piece` was not seen yet; where text before it is missing, the answer is broken."""
        if piece.at > self.length:
            self.broken = True
        self._note(piece)
        return "" if self.broken else piece.text[self.length - piece.at :]

    def sound(self, piece: Spoken) -> list[Event]:
        """The answer is heard; where audio before it is missing, it is broken."""
        data = self.track.fresh(piece) if self.track is not None else b""
        self.broken = self.broken or data is None
        marks = [(characters, at // MS) for characters, at in piece.marks]
        return [events.sound(self._place, data, marks)] if data else []

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
        self.length += len(text)

    def end(self, finished: Finished) -> Finished:
        """How the answer ends: as `finished` says, unless it was cut off, or text is missing."""
        if self.finished is not None:
            finished = msgspec.structs.replace(finished, usage=self.finished.usage)
        if self.cut:
            return msgspec.structs.replace(finished, status="cancelled", problem=None)
        lost = finished.status in ("completed", "incomplete") and (finished.length or 0) > self.length
        if lost or self.broken:
            return Finished(finished.session, finished.turn, status="failed", usage=finished.usage, problem=GAP)
        return finished

    def close(self, item: Item, *, kept: bool) -> list[Event]:
        """What there was of the answer is over, and is `item`; `kept` says whether the conversation still has it."""
        if not self.opened:
            return []
        return events.closing(self._place, self.text, item.view, self.previous, in_conversation=kept)

    def done(self, finished: Finished, item: Item) -> Event:
        """The response is over."""
        return events.done(self.view, finished, [item.view] if self.opened else [], self.cut or CLIENT)
