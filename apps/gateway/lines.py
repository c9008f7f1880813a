"""The brain of a `/chat` session: lines are answered one after the other, in the order in which they came."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from apps.gateway import commands as c
from apps.gateway.account import Position
from apps.gateway.connection import EXPIRED
from apps.gateway.events import Event
from apps.gateway.items import blank
from apps.gateway.refusal import Refusal
from apps.gateway.session import Session
from apps.gateway.terms import Terms
from pipeline.messages import Message

MOST_MISSED = 64


class Waiting(NamedTuple):
    """A line that is not answered yet, or why it will not be; `logged` if the log tells of it."""

    line: str | Refusal
    logged: bool = False


class LineSession(Session):
    """A session whose client sends lines.

    A line that is refused waits for its turn like any other, so that what is told of it never falls into the answer to
    the line before. While a client is away (`present` is false) whole answers are kept for it, in case it comes back
    without saying what it has seen.
    """

    speaks = False

    def __init__(self, name: str, terms: Terms) -> None:
        super().__init__(name, terms)
        self.say.more = self._taken
        self._waiting: deque[Waiting] = deque()
        self._takes = 0
        self._missed: deque[Event] = deque(maxlen=MOST_MISSED)
        self.present = True
        self.flooded = False

    def open(self) -> None:
        """Begin; nothing is told to a chat before its first line."""
        self._begin()

    def receive(self, command: c.Command) -> bool:
        """Answer a line, now or when those before it are answered; whether it is one."""
        assert isinstance(command, c.Say)
        if (size := len(command.text.encode())) > (most := self.settings.max_text_bytes):
            self.refuse(Refusal("string_above_max_length", f"the line has {size} bytes; at most {most} are taken"))
            return False
        waits = self._busy
        if self._queue(Waiting(command.text, logged=waits)) and waits:
            self.say.tell(line=command.text)
        self._next()
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client that a line is not answered, when it is that line's turn."""
        logged = self._busy and refusal.code != EXPIRED  # which ends the connection, and is about no line
        if self._queue(Waiting(refusal, logged)) and logged:
            self.say.tell(refused=(refusal.code, refusal.message))
        self._next()

    def read(self, at: Position, message: Message, *, known: bool = False) -> list[Event]:
        """The events that a record of the session makes; none where the client has got them (`known`)."""
        made = super().read(at, message, known=known)
        if not self.present:
            self._missed += [_whole(event) for event in made if event["type"] == "response.output_text.done"]
            self._missed += [event for event in made if event["type"] in ("response.done", "error")]
        self._next()
        return made

    def tick(self, now: float) -> bool:
        """End what should have ended, and go on; whether the log has lost an end."""
        lost = super().tick(now)
        self._next()
        return lost

    def abandon(self) -> None:
        """Give up what is under way, and what waits for it."""
        away = Refusal("client_away", "nobody waited for the answer")
        self._waiting = deque(
            waiting if isinstance(waiting.line, Refusal) else waiting._replace(line=away) for waiting in self._waiting
        )
        super().abandon()

    def returned(self) -> list[Event]:
        """The client is back: the answers that it missed, and of the one under way all so far."""
        self.present, self.flooded = True, False
        missed = list(self._missed)
        self._missed.clear()
        last = self.account.last_id
        return missed + [_whole({"event_id": last, "text": answer.text}) for answer in self.turns if answer.text]

    def _go_live(self) -> None:
        super()._go_live()
        self._waiting.extend(
            Waiting(line if isinstance(line, str) else Refusal(*line), logged=True) for line in self.account.lines
        )

    def _taken(self) -> dict[str, Any]:
        takes, self._takes = self._takes, 0
        return {"takes": takes}

    @property
    def _busy(self) -> bool:
        """Whether what comes now has to wait for its turn."""
        return bool(self._waiting) or self.turns.current is not None

    def _queue(self, waiting: Waiting) -> bool:
        """Let a line wait; false if too many do."""
        self.flooded = self.flooded or len(self._waiting) >= self.settings.max_queued_lines
        if not self.flooded:
            self._waiting.append(waiting)
        return not self.flooded

    def _next(self) -> None:
        while self._waiting and self.turns.current is None and self.begun and not self.lost:
            waiting = self._waiting.popleft()
            self._takes += waiting.logged
            try:
                self._answer(waiting.line)
            except Refusal as refusal:
                super().refuse(refusal)

    def _answer(self, line: str | Refusal) -> None:
        if isinstance(line, Refusal):
            raise line
        self.responding.check_open()
        if blank(line):
            raise Refusal("empty_text", "the line holds no text")
        self.create(c.ItemCreate(item=c.SaidItem("user", [c.Part("input_text", text=line)])))
        self.responding.begin(c.ResponseOptions())


def _whole(event: Event) -> Event:
    return {"type": "response.output_text.delta", "event_id": event["event_id"], "delta": event["text"]}
