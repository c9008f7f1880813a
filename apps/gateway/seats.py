"""All sessions of this gateway: which has a live socket, which waits for its client, which has waited long enough."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from apps.gateway.account import Position
from apps.gateway.arrival import Arrival
from apps.gateway.arrivals import TAKEN, Arrivals
from apps.gateway.connection import EXPIRED, FAILED, GOING_AWAY, REPLACED, RESTART, TOO_MUCH, TRY_LATER, Connection
from apps.gateway.lines import LineSession
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outgoing import Outgoing
from apps.gateway.refusal import RESTARTING, Refusal
from apps.gateway.seat import Seat
from apps.gateway.session import Session
from apps.gateway.settings import GatewaySettings
from pipeline.errors import MessageTooLarge
from pipeline.messages import Message, Snapshot
from pipeline.topics import REPLIES

log = logging.getLogger(__name__)

TOO_LARGE = "what was to be told is larger than the log takes; send less at once"
UNREACHABLE = "the log cannot be reached; try again in 5 s"


class Seats:
    """The sessions by their id, and those on their way here. Times are in seconds of one clock."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._seats: dict[str, Seat] = {}
        self._gone: list[Session] = []
        self.arrivals = Arrivals(self._come)
        self.draining = self.closing = False

    def __iter__(self) -> Iterator[Seat]:
        return iter(tuple(self._seats.values()))

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def connected(self) -> int:
        """Sessions with a live socket."""
        return sum(seat.connection is not None for seat in self._seats.values())

    @property
    def busy(self) -> bool:
        """Whether a turn is under way that cannot go on elsewhere."""
        return any(len(seat.session.turns) and not self.movable(seat) for seat in self)

    def movable(self, seat: Seat) -> bool:
        """Whether its client can go on at another gateway."""
        return bool(self._settings.secret) and (seat.connection is None or seat.connection.resumable)

    def refuses(self, session: str) -> bool:
        """Whether that session is to begin nothing new: the gateway stops, and its client cannot go on elsewhere."""
        if not self.draining:
            return False
        seat = self._seats.get(session)
        return seat is None or not self.movable(seat)

    def get(self, session: str) -> Seat | None:
        """The seat of a session."""
        return self._seats.get(session)

    def add(self, session: Session, now: float) -> Seat:
        """Keep a new session."""
        seat = self._seats[session.id] = Seat(session, now)
        self._metrics.sessions.set(len(self._seats))
        return seat

    def enter(self, seat: Seat, connection: Connection) -> None:
        """The client is there; an older socket of its session is closed."""
        if seat.connection is not None:
            seat.connection.close(REPLACED, TAKEN)
        seat.connection, seat.left_at, seat.expiring_at = connection, None, None
        missed, seat.missed = seat.missed, None
        if missed is not None:
            connection.catch_up(missed)
        if isinstance(seat.session, LineSession):
            whole = seat.session.returned()
            if missed is None:
                connection.deliver(whole)
        elif missed is not None:
            connection.opened_at -= max(0.0, self._settings.max_session_s - (seat.session.expires_at - time.time()))

    def leave(self, seat: Seat, connection: Connection, now: float) -> None:
        """A socket has ended; its session waits for the client to come back."""
        if seat.connection is connection:
            seat.connection, seat.left_at = None, now
            seat.session.left()
            if isinstance(seat.session, LineSession):
                seat.session.present = False
            self._make_room()

    # -- who comes back

    def make_way(self, name: str) -> Session | None:
        """Session `name`, which its client comes back to, takes no more audio, and says how far that came."""
        seat = self._seats.get(name)
        if seat is None or not seat.session.voicing.microphone.stream:
            return None
        if seat.connection is not None:
            seat.connection.close(REPLACED, TAKEN)
        seat.session.left()
        return seat.session

    def _come(self, arrival: Arrival) -> Seat:
        """A session is ours now."""
        if (other := self._seats.get(arrival.session.id)) is not None:  # another life of the name, in another partition
            self._take(other)
        seat = self.add(arrival.session, time.monotonic())
        seat.missed = arrival.missed
        return seat

    # -- what comes from the log, or does not reach it

    def read(self, at: Position, message: Message) -> list[Session]:
        """Give a record to its session; returns those of ours that may have something to say to it."""
        name, _, _ = message.session.partition("/")  # a stage may know no more than the key of what it could not read
        found: list[Session] = []
        seat = self._seats.get(name)
        if seat is not None and seat.session.terms.partition == at.partition:
            if (heir := self.arrivals.heir(name, message)) is not None:
                heir.take_over(seat.session)
            with self._alone(seat):
                self._read(seat, at, message)
            found.append(seat.session)
        if session := self.arrivals.read(name, at, message):
            found.append(session)
        if not found:
            self._metrics.skipped.labels("no such session").inc()
        return found

    def _read(self, seat: Seat, at: Position, message: Message) -> None:
        told = seat.session.read(at, message)
        if seat.session.lost:
            if seat.connection is not None:
                seat.connection.close(REPLACED, TAKEN)
            del self._seats[seat.session.id]
        elif told and seat.connection is not None:
            seat.connection.deliver(told)
        elif seat.missed is not None:
            seat.missed += told

    def undelivered(self, sent: Outgoing, why: Exception) -> Session | None:
        """A record did not reach the log: what cannot be logged cannot be told, so the socket is closed.

        So it is for audio: its client comes back, and is told from where to send it again.
        """
        self._metrics.undelivered.labels(sent.topic.name).inc()
        log.warning("%s: a record for %r was not delivered: %s", sent.message.session, sent.topic.name, why)
        if (seat := self._seats.get(sent.message.session)) is None:
            return None
        unsaid = sent.topic is REPLIES and not isinstance(sent.message, Snapshot)
        if (seat.session.undelivered(sent, why) or unsaid) and seat.connection is not None:
            too_large = isinstance(why, MessageTooLarge)
            seat.connection.close(*((TOO_MUCH, TOO_LARGE) if too_large else (TRY_LATER, UNREACHABLE)))
        return seat.session

    # -- time

    def tick(self, now: float) -> list[Session]:
        """End what should have ended; returns all sessions, each of which may have something to say."""
        for seat in self:
            with self._alone(seat):
                self._tick_seat(seat, now)
        self._metrics.sessions.set(len(self._seats))
        gone, self._gone = self._gone, []
        return [*gone, *(seat.session for seat in self)]

    def _tick_seat(self, seat: Seat, now: float) -> None:
        if seat.session.tick(now) and seat.connection is not None:
            seat.connection.close(TRY_LATER, UNREACHABLE)
        if seat.connection is not None:
            self._tick_connection(seat, seat.connection, now)
        elif seat.left_at is not None:
            self._tick_empty(seat, now - seat.left_at)

    def _tick_connection(self, seat: Seat, connection: Connection, now: float) -> None:
        busy = len(seat.session.turns) > 0
        if busy:
            connection.heard_at = now
        if self.closing and (not busy or self.movable(seat)):
            connection.close(RESTART, RESTARTING)
        if isinstance(seat.session, LineSession) and seat.session.flooded:
            connection.close(TOO_MUCH, "too many lines wait for their answer")
        if seat.expiring_at is not None:
            if now > seat.expiring_at + self._settings.slack_s:
                connection.close(GOING_AWAY, EXPIRED)
            return
        if now - connection.opened_at > self._settings.max_session_s:
            self._expire(seat, now, "the session has reached its longest time")
        elif now - connection.heard_at > self._settings.idle_timeout_s:
            self._expire(seat, now, "nothing was heard for too long")

    def _expire(self, seat: Seat, now: float, why: str) -> None:
        """Tell the client, whose socket is closed when it has been told."""
        seat.expiring_at = now
        seat.session.refuse(Refusal(EXPIRED, why))

    def _tick_empty(self, seat: Seat, away: float) -> None:
        if away <= self._settings.grace_s:
            return
        seat.session.abandon()
        keep = self._settings.chat_ttl_s if isinstance(seat.session, LineSession) else self._settings.grace_s
        if away > keep and not len(seat.session.turns):
            self._gone.append(seat.session)
            del self._seats[seat.session.id]

    def _make_room(self) -> None:
        """Let the session go whose client is away the longest, if too many are."""
        away = [seat for seat in self if seat.left_at is not None]
        if len(away) > self._settings.max_sessions:
            self._drop(min(away, key=lambda seat: seat.left_at or 0.0))

    @contextmanager
    def _alone(self, seat: Seat) -> Generator[None, None, None]:
        """An error that nobody foresaw ends the one session that has it; the others go on."""
        try:
            yield
        except Exception:
            log.exception("%s: the session has failed, and ends", seat.session.id)
            if seat.connection is not None:
                seat.connection.close(FAILED, "the session has failed")
            self._drop(seat)

    def _take(self, seat: Seat) -> None:
        """Let a session go that is opened elsewhere, with its socket."""
        if seat.connection is not None:
            seat.connection.close(REPLACED, TAKEN)
        self._drop(seat)

    def _drop(self, seat: Seat) -> None:
        """Let a session go; its turns end untold."""
        seat.session.drop()
        self._gone.append(seat.session)
        del self._seats[seat.session.id]
