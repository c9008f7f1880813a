"""Doing to a deployment what the plan says, and noting when it began, whom it struck and when all served again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping

from apps.chaos.deployment import Deployment
from apps.chaos.plan import Fault, Kind
from apps.chaos.program import NotReady, Program
from apps.chaos.record import Struck
from apps.supervisor.words import Row

SETTLED_S = 180.0
"""A worker that has died may take long to come back where many load at once."""
JOINED_S = 180.0
TOGETHER_S = 4.0
"""How long the members that joined for a rebalance stay."""
STOP_S = 40.0
POLL_S = 0.1
READY = "ready with"
"""What a worker logs when it has joined its group."""
SIGNALS = {Kind.KILL: signal.SIGKILL, Kind.DRAIN: signal.SIGTERM}


class Striker:
    """Strikes `deployment`, and notes that in `noted`; `clock` gives the seconds."""

    def __init__(self, deployment: Deployment, clock: Callable[[], float], noted: list[Struck]) -> None:
        self._deployment, self._clock, self._noted = deployment, clock, noted
        self._chance = random.Random(f"{deployment.plan.seed}:victims")
        self._ways: Mapping[Kind, Callable[[Struck], Awaitable[None]]] = {
            Kind.KILL: self._signal,
            Kind.DRAIN: self._signal,
            Kind.PAUSE: self._pause,
            Kind.FREEZE: self._pause,
            Kind.REBALANCE: self._rebalance,
            Kind.BROKER: self._broker,
            Kind.GATEWAY: self._gateway,
            Kind.LEAVE: self._gateway,
        }

    async def strike(self, fault: Fault) -> Struck:
        """Carry `fault` out, once what it concerns serves; a gateway's needs all of them, the broker's everything.

        Raises:
            NotReady: something had not come back in time.
        """
        names = self._concerned(fault)
        await self._deployment.settled(SETTLED_S, only=names)
        struck = Struck(fault, self._clock())
        self._noted.append(struck)
        await self._ways[fault.kind](struck)
        return struck

    async def recovered(self, struck: Struck) -> None:
        """Return when what was struck serves again.

        Raises:
            NotReady: it does not.
        """
        await self._deployment.settled(SETTLED_S, only=self._concerned(struck.fault))
        struck.until = self._clock()

    def _concerned(self, fault: Fault) -> Collection[str]:
        if fault.stage:
            return {fault.stage}
        gateways = {gateway.program.name for gateway in self._deployment.gateways}
        return gateways if fault.kind in (Kind.GATEWAY, Kind.LEAVE) else self._deployment.names

    async def _victim(self, struck: Struck) -> Row:
        """The worker of the stage that has most in hand."""
        rows = await self._deployment.stages[struck.fault.stage].rows()
        active = [row for row in rows if row.role == "active" and row.pid is not None]
        if not active:
            raise NotReady(f"{struck.fault.stage} has no worker to be struck")
        self._chance.shuffle(active)
        row = max(active, key=lambda one: one.in_hand)
        struck.victim = f"{row.name}[{row.pid}]"
        struck.parts = frozenset(int(part.rpartition("-")[2]) for part in row.parts)
        return row

    async def _signal(self, struck: Struck) -> None:
        row = await self._victim(struck)
        struck.at = self._clock()
        _send(row, SIGNALS[struck.fault.kind])
        await self._replaced(struck, row)

    async def _replaced(self, struck: Struck, row: Row) -> None:
        """Wait until the supervisor has seen that the worker is gone."""
        stage = self._deployment.stages[struck.fault.stage]
        try:
            async with asyncio.timeout(STOP_S):
                while any(one.pid == row.pid for one in await stage.rows()):  # noqa: ASYNC110 (no child of ours)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise NotReady(f"{struck.victim} is still there {STOP_S:.0f} s after its signal") from None

    async def _pause(self, struck: Struck) -> None:
        plan = self._deployment.plan
        row = await self._victim(struck)
        struck.at = self._clock()
        _send(row, signal.SIGSTOP)
        await asyncio.sleep(plan.pause if struck.fault.kind is Kind.PAUSE else plan.freeze)
        if _send(row, signal.SIGCONT):
            struck.note = "it woke up"
        else:
            struck.note = "it had been replaced"

    async def _rebalance(self, struck: Struck) -> None:
        name = struck.fault.stage
        joiners = [self._deployment.stage(name) for _ in range(2)]
        struck.victim = " and ".join(one.name for one in joiners)
        try:
            for one in joiners:
                await one.start()
            await asyncio.gather(*(_joined(one) for one in joiners))
            await asyncio.sleep(TOGETHER_S)
        finally:
            codes = await asyncio.gather(*(one.stop(STOP_S) for one in joiners))
        struck.note = f"left with status {', '.join(map(str, codes))}"

    async def _broker(self, struck: Struck) -> None:
        broker = self._deployment.broker
        assert broker is not None
        struck.at = self._clock()
        await broker.kill()
        await asyncio.sleep(self._deployment.plan.down)
        await broker.restart()

    async def _gateway(self, struck: Struck) -> None:
        gateway = self._chance.choice(self._deployment.gateways)
        struck.victim, struck.gateway = gateway.program.name, gateway.number
        struck.at = self._clock()
        if struck.fault.kind is Kind.GATEWAY:
            await gateway.program.kill()
        else:
            await gateway.program.stop(STOP_S)
        await asyncio.sleep(self._deployment.plan.down)
        await gateway.program.start()


async def _joined(program: Program) -> None:
    """Wait until a worker says that it has its share of the partitions."""
    try:
        async with asyncio.timeout(JOINED_S):
            while READY not in await asyncio.to_thread(program.log.read_text, errors="replace"):
                program.refuse_dead()
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotReady(f"{program.name} did not join within {JOINED_S:.0f} s; {program.log} tells more") from None


def _send(row: Row, number: signal.Signals) -> bool:
    """Send a worker a signal; False if it is gone."""
    assert row.pid is not None
    try:
        os.kill(row.pid, number)
    except ProcessLookupError:
        return False
    return True
