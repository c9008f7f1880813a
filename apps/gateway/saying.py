"""What a session says into the log, in order: the events that its client gets from there, and what the stages get."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from apps.gateway.events import Event
from apps.gateway.outgoing import Outgoing
from apps.gateway.terms import Terms
from pipeline.headers import DEADLINE, REPLY_TO, TENANT, TRACE, TURN
from pipeline.messages import Cancel, Message, Told, Turn
from pipeline.topics import CONTROL, REPLIES, TURNS


class Saying:
    """Speaks for session `session` as `owner`; what its client is told stands in the partition of `terms`.

    `asked` names the client's event that is being carried out, until something is told that answers it. `on_the_way`
    counts what was told and is not read yet. `more` is what else stands in the next `Told`.
    """

    def __init__(self, session: str, owner: str, terms: Terms) -> None:
        self._session, self._owner, self._partition, self._tenant = session, owner, terms.partition, terms.tenant
        self.asked = ""
        self.on_the_way = 0
        self.outgoing: list[Outgoing] = []
        self.more: Callable[[], dict[str, Any]] = dict

    def tell(self, *told: Event, **more: Any) -> None:
        """Put events into the log, from where the client gets them; `more` is what else `Told` says."""
        self.log(self.told(told, **more))

    def told(self, told: tuple[Event, ...], **more: Any) -> Told:
        """The same as a message that is still to be put there."""
        asked, self.asked = self.asked, ""
        self.on_the_way += 1
        if more.get("audio") is not None:
            more["heard_at"] = time.time()
        return Told(self._session, more.pop("turn", ""), told, self._owner, asked, **self.more(), **more)

    def log(self, message: Message) -> None:
        """Put a message into the log."""
        self.outgoing.append(Outgoing(REPLIES, message, self._session, self._partition))

    def ask(self, turn: Turn, *, aside: bool, ends_at: float, trace: str) -> None:
        """Hand a turn to the stages, which must have ended then; one that stands `aside` waits for no other."""
        headers = {
            REPLY_TO: str(self._partition),
            TURN: turn.turn,
            DEADLINE: f"{ends_at:.3f}",
            TENANT: self._tenant,
            TRACE: trace,
        }
        self.post(Outgoing(TURNS, turn, f"{self._session}/{turn.turn}" if aside else self._session, headers=headers))

    def give_up(self, turn: str, reason: str) -> None:
        """Ask all stages to give a turn up."""
        self.post(Outgoing(CONTROL, Cancel(self._session, turn, reason), self._session, partition=0))

    def post(self, sent: Outgoing) -> None:
        """Hand something to the stages."""
        self.outgoing.append(sent)

    def heard(self, message: Told) -> bool:
        """Something that was told has been read; whether it was ours, and nothing more is on the way."""
        if message.owner != self._owner:
            return False
        self.on_the_way = max(0, self.on_the_way - 1)
        return not self.on_the_way

    def take(self) -> list[Outgoing]:
        """What was said since the last call."""
        said, self.outgoing = self.outgoing, []
        return said
