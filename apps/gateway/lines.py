"""The brain of a `/chat` session: lines are answered one after the other, in the order in which they came."""

from __future__ import annotations

from collections import deque

from apps.gateway import commands as c
from apps.gateway.events import Event
from apps.gateway.items import blank
from apps.gateway.refusal import Refusal
from apps.gateway.session import Session, Terms
from apps.gateway.turns import Position
from pipeline.messages import Message

MOST_MISSED = 64


class LineSession(Session):
    """A session whose client sends lines.

    A line that is refused waits for its turn like any other, so that what is told of it never falls into the answer to
    the line before. While the client is away (`present` is false), whole answers are kept for it.
    """

    def __init__(self, name: str, terms: Terms) -> None:
        super().__init__(name, terms)
        self._waiting: deque[c.Say | Refusal] = deque()
        self._missed: deque[Event] = deque(maxlen=MOST_MISSED)
        self.present = True
        self.flooded = False

    def open(self) -> None:
        """Nothing is told to a chat before its first line."""

    def receive(self, command: c.Command) -> None:
        """Answer a line, now or when those before it are answered."""
        assert isinstance(command, c.Say)
        self._queue(command)

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client that a line is not answered, when it is that line's turn."""
        self._queue(refusal)

    def read(self, at: Position, message: Message) -> list[Event]:
        """The events that a record of the session makes."""
        made = super().read(at, message)
        if not self.present:
            self._missed += [_whole(event["text"]) for event in made if event["type"] == "response.output_text.done"]
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
        self._waiting = deque(line if isinstance(line, Refusal) else away for line in self._waiting)
        super().abandon()

    def returned(self) -> list[Event]:
        """The client is back: the answers that it missed, and of the one under way all so far."""
        self.present, self.flooded = True, False
        missed = list(self._missed)
        self._missed.clear()
        return missed + [_whole(answer.text) for answer in self.turns if answer.text]

    def _queue(self, line: c.Say | Refusal) -> None:
        if len(self._waiting) >= self.settings.max_queued_lines:
            self.flooded = True
            return
        self._waiting.append(line)
        self._next()

    def _next(self) -> None:
        while self._waiting and self.turns.current is None:
            line = self._waiting.popleft()
            try:
                self._answer(line)
            except Refusal as refusal:
                super().refuse(refusal)

    def _answer(self, line: c.Say | Refusal) -> None:
        if isinstance(line, Refusal):
            raise line
        self.check_open()
        if blank(line.text):
            raise Refusal("empty_text", "the line holds no text")
        self.create(c.ItemCreate(item=c.SaidItem("user", [c.Part("input_text", text=line.text)])))
        self.respond(c.ResponseOptions())


def _whole(text: str) -> Event:
    return {"type": "response.output_text.delta", "delta": text}
