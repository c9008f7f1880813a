"""A session on its way to this gateway: rebuilt from what the log has of it, up to where it becomes ours. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from apps.gateway.account import Position, base_of
from apps.gateway.cursor import Cursor
from apps.gateway.events import Event
from apps.gateway.refusal import Refusal
from apps.gateway.session import Session
from pipeline.messages import Message, Snapshot

RESUME_FAILED = "resume_failed"
MOST_BEHIND = 50_000
"""Records of a session that may come while its past is being read."""

CURES = {
    "invalid_cursor": "these are not a session of yours and the id of an event that you got in it",
    "gone": "the log does not reach back to what you have missed",
    "expired": "the session has reached its longest time",
    "replaced": "there is a newer session of this name",
    "unreadable": "the session was kept by another version of this program",
}
ANEW = "nothing was sent; connect without `resume` and `last_event_id`, and tell the new session what it has to know"

Past = Sequence[tuple[Position, Message]]


def failed(reason: str) -> Refusal:
    """Why a client cannot go on with its session, and what to do instead."""
    return Refusal(RESUME_FAILED, f"{CURES[reason]}: {ANEW}", param="last_event_id", reason=reason)


class Arrival:
    """`session`, whose client has got all events up to `cursor`; `missed` are those after it.

    What the log brings while the past is still being read waits `behind` it.
    """

    def __init__(self, session: Session, cursor: Cursor) -> None:
        self.session, self.cursor = session, cursor
        self.missed: list[Event] = []
        self._behind: list[tuple[Position, Message]] | None = []
        self._heard = -1

    @property
    def behind(self) -> bool:
        """Whether its past is still being read."""
        return self._behind is not None

    def read(self, at: Position, message: Message) -> None:
        """A record of the session has come.

        Raises:
            Refusal: too many have.
        """
        if self._behind is None:
            self._hear(at, message)
        elif len(self._behind) < MOST_BEHIND:
            self._behind.append((at, message))
        else:
            raise failed("gone")

    def rebuild(self, past: Past, first: int) -> None:
        """Read `past`, all that the log has of the session from offset `first` on, then what came meanwhile.

        Raises:
            Refusal: there is no way to know all that the client has missed.
        """
        at, snapshot = self._beginning(past, first)
        try:
            self.session.restore(snapshot, at)
        except msgspec.DecodeError:
            raise failed("unreadable") from None
        self._heard = at.offset if snapshot.at is None else snapshot.at
        behind, self._behind = self._behind or [], None
        for then, message in (*past, *behind):
            self._hear(then, message)

    def _beginning(self, past: Past, first: int) -> tuple[Position, Snapshot]:
        """The newest snapshot from which all that the client has not got can be told."""
        snapshots = [(at, message) for at, message in past if isinstance(message, Snapshot)]
        if any(message.at is None and at.offset > self.cursor.offset for at, message in snapshots):
            raise failed("replaced")
        for at, message in reversed(snapshots):
            if base_of(message, at) >= first and (message.last is None or message.last <= self.cursor.place):
                return at, message
        raise failed("gone")

    def _hear(self, at: Position, message: Message) -> None:
        """Read a record, unless it was read: what comes live may be behind what was read back, or before it."""
        if at.offset <= self._heard:
            return
        self._heard = at.offset
        made = self.session.read(at, message, known=at.offset < self.cursor.offset)
        if self.session.lost:
            raise failed("replaced")
        self.missed += made[self.cursor.number + 1 :] if at.offset == self.cursor.offset else made
