"""The sessions on their way to this gateway: each is given what the log brings of it, until it is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from apps.gateway.account import Position
from apps.gateway.arrival import Arrival
from apps.gateway.refusal import Refusal
from apps.gateway.seat import Seat
from apps.gateway.session import Session
from pipeline.messages import Claimed, Message

TAKEN = "this session was opened elsewhere"


class Arrivals:
    """Those on their way here, by their names; `come` gives a seat to one that is ours now."""

    def __init__(self, come: Callable[[Arrival], Seat]) -> None:
        self._come = come
        self._arrivals: dict[str, tuple[Arrival, asyncio.Future[Seat]]] = {}

    @property
    def expected(self) -> set[int]:
        """The partitions of those who are on their way here."""
        return {arrival.cursor.partition for arrival, _ in self._arrivals.values()}

    def expect(self, arrival: Arrival) -> asyncio.Future[Seat]:
        """Keep for `arrival` what the log brings of it; returns what will be its seat."""
        name = arrival.session.id
        here: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        if name in self._arrivals:
            self._fail(name, Refusal("session_taken", TAKEN))
        self._arrivals[name] = arrival, here
        return here

    def unexpect(self, arrival: Arrival) -> None:
        """It has come, or does not come."""
        name = arrival.session.id
        if name in self._arrivals and self._arrivals[name][0] is arrival:
            del self._arrivals[name]

    def heir(self, name: str, message: Message) -> Session | None:
        """The session on its way here which `message` makes the owner of `name`, if it does."""
        arrival, _ = self._arrivals.get(name, (None, None))
        claimed = arrival is not None and isinstance(message, Claimed) and message.owner == arrival.session.owner
        return arrival.session if arrival is not None and claimed else None

    def read(self, name: str, at: Position, message: Message) -> Session | None:
        """Give a record to the session of that name on its way here, which has come when that makes it ours."""
        arrival, here = self._arrivals.get(name, (None, None))
        if arrival is None or here is None or arrival.cursor.partition != at.partition:
            return None
        try:
            arrival.read(at, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this one arrival
            self._fail(name, error)
            return None
        if arrival.session.ours and not here.done():
            here.set_result(self._come(arrival))
            del self._arrivals[name]
        return arrival.session

    def _fail(self, name: str, why: Exception) -> None:
        _, here = self._arrivals.pop(name)
        if not here.done():
            here.set_exception(why)
            here.exception()  # known, should nobody wait for it yet
