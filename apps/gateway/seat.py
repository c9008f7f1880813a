"""A session of this gateway, and where its client is."""

from __future__ import annotations

from apps.gateway.connection import Connection
from apps.gateway.events import Event
from apps.gateway.session import Session


class Seat:
    """A session and its client's socket, if there is one; `left_at` is since when there is none.

    `missed` is what the client of a session that was resumed has to get first.
    """

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.connection: Connection | None = None
        self.missed: list[Event] | None = None
        self.left_at: float | None = now
        self.expiring_at: float | None = None
