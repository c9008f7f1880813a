"""The same kill -9 of LLM workers without supervisor and standby, to compare with: two plain members of the group."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from apps.broker.ports import unused_port
from apps.chaos.audit import Audit
from apps.chaos.deployment import STOP_S, Deployment
from apps.chaos.plan import FIRST_S, Fault, Kind
from apps.chaos.program import NotReady, Program, fetched
from apps.chaos.record import Record, Struck
from apps.chaos.traffic import Traffic

JOINED_S = 120.0
TAKEN_S = 25.0
"""How long a dead worker's partitions may be without an owner: well above any session timeout that makes sense."""
POLL_S = 0.1
IN_HAND = re.compile(r'penstock_stage_in_hand\{stage="llm"\} (\d+)')


class Plain:
    """A worker that nobody supervises, with its metrics on a port."""

    def __init__(self, deployment: Deployment) -> None:
        self.port = unused_port()
        self.program: Program = deployment.stage("llm", ["--health-port", str(self.port)])

    async def joined(self) -> None:
        """Return when it works.

        Raises:
            NotReady: it does not in time.
        """
        try:
            async with asyncio.timeout(JOINED_S):
                while await fetched(f"http://127.0.0.1:{self.port}/readyz") is None:
                    self.program.refuse_dead()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise NotReady(f"{self.program.name} did not join within {JOINED_S:.0f} s") from None

    async def in_hand(self) -> int:
        """The turns that it works on."""
        found = IN_HAND.search(await fetched(f"http://127.0.0.1:{self.port}/metrics") or "")
        return int(found[1]) if found else 0


async def killed(deployment: Deployment, traffic: Traffic) -> None:
    """Let `traffic` go on while the busier of two plain workers is killed, again and again; each time another comes."""
    await deployment.stages["llm"].program.stop(STOP_S)
    workers = [Plain(deployment) for _ in range(2)]
    for worker in workers:
        await worker.program.start()
    for worker in workers:
        await worker.joined()
    asking = asyncio.create_task(traffic.steadily())
    try:
        for number in range(deployment.plan.comparisons):
            await asyncio.sleep(FIRST_S)
            workers = await _kill(deployment, traffic, workers, number)
        traffic.finish()
        await asyncio.wait_for(asking, JOINED_S)
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await asyncio.gather(*(worker.program.stop(STOP_S) for worker in workers))


async def _kill(deployment: Deployment, traffic: Traffic, workers: list[Plain], number: int) -> list[Plain]:
    counts = [await worker.in_hand() for worker in workers]
    victim = workers[counts.index(max(counts))]
    struck = Struck(Fault(number + 1, traffic.clock(), Kind.KILL, "llm"), traffic.clock(), victim.program.name)
    traffic.record.faults.append(struck)
    await victim.program.kill()
    await asyncio.sleep(TAKEN_S)
    heir = Plain(deployment)
    await heir.program.start()
    await heir.joined()
    struck.until = traffic.clock()
    return [heir, *(worker for worker in workers if worker is not victim)]


def mark(record: Record, log: Audit) -> None:
    """Note which partitions each fault struck: those that somebody claimed soon after, and nobody else."""
    for struck in record.faults:
        at = record.zero + struck.at
        struck.parts = frozenset(part for (part, _), claimed in log.claims.items() if at < claimed < at + TAKEN_S)
