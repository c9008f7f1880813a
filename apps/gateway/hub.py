"""Between the sessions and the bus: what the log brings goes to its session, and what a session says to the log."""

from __future__ import annotations

import asyncio
import logging
import time

from apps.gateway.account import Position
from apps.gateway.arrival import Arrival, Past, failed
from apps.gateway.arrivals import TAKEN
from apps.gateway.cursor import Cursor, Signer
from apps.gateway.history import History
from apps.gateway.lines import LineSession
from apps.gateway.listened import reached
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outbox import Outbox
from apps.gateway.outgoing import Outgoing
from apps.gateway.reading import Reading
from apps.gateway.refusal import LIMITED, Refusal
from apps.gateway.seat import Seat
from apps.gateway.seats import Seats
from apps.gateway.session import Session
from apps.gateway.settings import GatewaySettings
from pipeline.bus import Bus, Part, Record
from pipeline.errors import BusUnavailable, UndecodableMessage
from pipeline.topics import AUDIO, REPLIES

log = logging.getLogger(__name__)

TICK_S = 0.25
RESUME_S = 30.0
LOOK_BACK = 10_000
"""Records in which the snapshot of a session that was open lately stands, as a rule."""
DISTANCE = 2_000
DISTANCE_EACH = 20
"""A session's snapshot is made anew when it stands so many records back, and so many more for each session there is."""
AT_ONCE = 50
"""Sessions whose snapshots are made at once."""


class Hub:
    """Owns the reading, the publishing and the clock of one gateway."""

    def __init__(self, bus: Bus, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self._bus, self._settings, self._metrics = bus, settings, metrics
        self.seats = Seats(settings, metrics)
        self.outbox = Outbox(bus, self._undelivered, timeout_s=settings.publish_timeout_s)
        self.signer = Signer(settings.secret.reveal())
        self.reading = Reading(bus, settings.replies, self._take)
        self._history = History(bus)

    @property
    def problem(self) -> str | None:
        """Why the replies are not read, if so."""
        return self.reading.problem

    def partition(self) -> int:
        """The partition for the next session: one of ours, in turn."""
        return self.reading.next_own()

    async def pump(self, session: Session) -> None:
        """Hand to the log what `session` has to say; waits while the log is behind."""
        self.outbox.post(session.outgoing())
        await self.outbox.room()

    def end_turns(self) -> None:
        """End what is under way, and what is heard, where it cannot go on elsewhere: the gateway stops."""
        for seat in self.seats:
            if not self.seats.movable(seat):
                seat.session.end_turns()
                seat.session.voicing.end()
            self.outbox.post(seat.session.outgoing())

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reading.run())
            tasks.create_task(self.outbox.run())
            tasks.create_task(self._tick())

    # -- coming back

    async def resume(self, session: Session, cursor: Cursor) -> Seat:
        """Let `session`, whose client has got all up to `cursor`, go on here, wherever it was before.

        Raises:
            Refusal: it cannot, or not now.
        """
        begun = time.monotonic()
        arrival = Arrival(session, cursor)
        here = self.seats.arrivals.expect(arrival)
        try:
            async with asyncio.timeout(RESUME_S):
                await self.reading.adopt(cursor.partition)
                await self._rebuild(arrival)
                if not here.done():  # nobody has come back to it here meanwhile
                    await self._claim(session)
                seat = await here
            if self.seats.get(session.id) is not seat:  # another has taken it before anybody was here to be told
                raise Refusal("session_taken", TAKEN)
        except (BusUnavailable, TimeoutError) as error:
            log.warning("%s cannot be resumed now: %s", session.id, str(error) or "it takes too long")
            why = "the log could not be read in time; come back with the same `resume` and `last_event_id`"
            raise Refusal("resume_unavailable", why, kind=LIMITED, retry_after=2.0) from None
        finally:
            self.seats.arrivals.unexpect(arrival)
        self._metrics.resume_seconds.observe(time.monotonic() - begun)
        return seat

    async def _claim(self, session: Session) -> None:
        """Make it ours, with all of its audio that stands in the log: what the client sends goes on from there."""
        if (before := self.seats.make_way(session.id)) is not None:
            await self.pump(before)
            session.claim()
        else:
            ears = session.account.ears
            known = bool(ears.stream and ears.noted_at)
            session.claim(
                await reached(self._bus, self._history, session.id, ears.stream, ears.noted_at) if known else None
            )
        await self.pump(session)

    async def _rebuild(self, arrival: Arrival) -> None:
        """Read its past: the newest of it first, which is enough as a rule."""
        session, cursor = arrival.session, arrival.cursor
        part = Part(REPLIES.name, cursor.partition)
        near = max(cursor.base, await self._bus.end(part) - LOOK_BACK)
        for start in sorted({near, cursor.base}, reverse=True):
            past = await self._history.read(part, session.id, start)
            if not past.whole:
                raise failed("gone")
            try:
                arrival.rebuild(self._decoded(past.records), past.first)
            except Refusal:
                if start == cursor.base or not arrival.behind:
                    raise
            else:
                break
        if not isinstance(session, LineSession) and time.time() > session.expires_at:
            raise failed("expired")

    def _decoded(self, records: list[Record]) -> Past:
        found: list[tuple[Position, object]] = []
        for record in records:
            try:
                found.append((Position(record.part.number, record.offset), REPLIES.decode(record.value)))
            except UndecodableMessage:
                self._metrics.skipped.labels("undecodable").inc()
        return found  # type: ignore[return-value]  # a topic's messages are of its types

    # -- the log

    def _take(self, record: Record) -> None:
        try:
            message = REPLIES.decode(record.value)
        except UndecodableMessage as error:
            self._metrics.skipped.labels("undecodable").inc()
            log.warning("%s at %d: %s", record.part, record.offset, error)
            return
        for session in self.seats.read(Position(record.part.number, record.offset), message):
            self.outbox.post(session.outgoing())

    def _undelivered(self, sent: Outgoing, why: Exception) -> None:
        if sent.topic is AUDIO:
            self.outbox.withdraw(sent)
        if session := self.seats.undelivered(sent, why):
            self.outbox.post(session.outgoing())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.outbox.tick(time.monotonic())
            for session in self.seats.tick(time.monotonic()):
                self.outbox.post(session.outgoing())
            await self._remember()
            self.reading.leave({seat.session.terms.partition for seat in self.seats} | self.seats.arrivals.expected)

    async def _remember(self) -> None:
        """Put into the log what snapshots are due."""
        distance = max(DISTANCE, DISTANCE_EACH * len(self.seats))
        for count, seat in enumerate(self.seats, start=1):
            session = seat.session
            session.remember(self.reading.position(session.terms.partition) - 1, distance)
            self.outbox.post(session.outgoing())
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)
