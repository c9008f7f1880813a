"""Steady traffic: clients that play scripts, each in a session of its own, and callers beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence

from apps.chaos.calls import Calls, Recording
from apps.chaos.calls import Told as Called
from apps.chaos.client import Client
from apps.chaos.line import SessionLost
from apps.chaos.plan import Plan, Question, Script, order_of, scripts
from apps.chaos.record import Record, Turn

BACK_S = 2.0
"""When a question that was put off is asked again."""
MOST_PUT_OFF = 10
LOOK_S = 0.1

Told = Callable[[Turn], None]
"""A turn is over."""


class Traffic:
    """The clients of one run, which note into `record`. `told` hears of each turn that is over."""

    def __init__(
        self,
        plan: Plan,
        urls: Sequence[str],
        told: Told,
        *,
        played: Sequence[Recording] = (),
        called: Called = lambda call: None,
    ) -> None:
        self.record = Record()
        self.began = time.monotonic()
        self._plan, self._urls, self._told = plan, urls, told
        self._calls = Calls(plan, played, urls, self.record, self.clock, called)
        self._scripts = scripts(plan)
        self._over = asyncio.Event()

    def clock(self) -> float:
        """Seconds since the clients began."""
        return time.monotonic() - self.began

    def finish(self) -> None:
        """Let each client end its session after the turn that it is in."""
        self._over.set()
        self._calls.finish()

    async def once(self) -> None:
        """Play every script once."""
        waiting = iter(range(self._plan.scripts))
        await self._play([waiting] * self._plan.clients, self._calls.once())

    async def steadily(self) -> None:
        """Play scripts until `finish`."""
        orders = [order_of(self._plan, number) for number in range(self._plan.clients)]
        await self._play(orders, self._calls.steadily())

    async def _play(self, orders: Sequence[Iterator[int]], calling: Coroutine[None, None, None]) -> None:
        self.began, self.record.zero = time.monotonic(), time.time()
        watching = asyncio.create_task(self._watch_time())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(calling)
                for number, order in enumerate(orders):
                    tasks.create_task(self._client(number, order))
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            self.record.seconds = self.clock()

    async def _watch_time(self) -> None:
        """Note how late the clients are woken."""
        while True:
            due = time.monotonic() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.record.late = max(self.record.late, time.monotonic() - due)

    async def _client(self, number: int, order: Iterator[int]) -> None:
        client = Client(number, self._urls, self.record, self.clock, tokens=self._plan.tokens)
        try:
            for script in order:
                if self._over.is_set():
                    return
                await self._session(client, self._scripts[script])
        finally:
            await client.close()

    async def _session(self, client: Client, script: Script) -> None:
        """One session; what goes wrong in it ends it, and is noted: what follows would not be comparable."""
        try:
            await client.open()
        except SessionLost as lost:
            self.record.troubles.append(f"client {client.number} cannot open a session: {lost}")
            return
        for place, question in enumerate(script.questions):
            if self._over.is_set() or not await self._answered(client, f"{script.number}.{place}", question):
                return

    async def _answered(self, client: Client, name: str, question: Question) -> bool:
        """Ask one question, and again for as long as it is put off; whether there is an answer."""
        for again in range(MOST_PUT_OFF):
            turn = Turn(name, client.number, question, self.clock())
            self.record.turns.append(turn)
            try:
                await client.ask(turn, again=again)
            except SessionLost as lost:
                turn.error = str(lost)
                turn.ended = self.clock()
            self._told(turn)
            if not turn.put_off:
                return turn.complete
            await asyncio.sleep(BACK_S)
        return False
