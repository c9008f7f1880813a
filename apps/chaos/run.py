"""A whole run: start everything, ask undisturbed, ask again while things break, read the log, and judge."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from apps.chaos.audit import Audit, audit
from apps.chaos.calls import counted, recordings
from apps.chaos.comparison import killed, mark
from apps.chaos.deployment import Deployment, Place
from apps.chaos.plan import Plan, schedule, without_broker
from apps.chaos.program import NotReady
from apps.chaos.record import Call, Record, Struck, Turn
from apps.chaos.reference import compare
from apps.chaos.striking import Striker
from apps.chaos.traffic import Traffic
from apps.chaos.verdict import Verdict, judged
from apps.chaos.words import Broken
from pipeline.kafka import KafkaBus

LEFT_OUT = "The broker was given, so it was not broken; its topics {}* are left there"
LAST_WORDS_S = 240.0
"""What the last turns may take: more than a client waits for one, and for its gateways before."""


class Tell(Protocol):
    """Hears how a run goes."""

    def phase(self, what: str, seconds: float | None = None) -> None:
        """Something else begins, which takes `seconds` if that is known."""

    def step(self, what: str) -> None:
        """What is waited for now."""

    def turn(self, turn: Turn) -> None:
        """A turn is over."""

    def call(self, call: Call) -> None:
        """A call is over."""

    def fault(self, struck: Struck) -> None:
        """Something is broken, or serves again if it has an `until`."""


@dataclass
class Outcome:
    """What a run has come to. `plain` is the verdict on the kills without supervisor and standby, if there were any."""

    plan: Plan
    logs: Path
    undisturbed: Record = field(default_factory=Record)
    disturbed: Record = field(default_factory=Record)
    verdict: Verdict = field(default_factory=Verdict)
    log: Audit = field(default_factory=Audit)
    plain: Verdict | None = None
    left_out: str = ""

    @property
    def broken(self) -> list[Broken]:
        """All that was not as it must be."""
        return self.verdict.broken + (self.plain.broken if self.plain else [])


async def run(plan: Plan, logs: Path, kafka: str | None, tell: Tell) -> Outcome:
    """Run `plan`; output of all programs is kept in `logs`. `kafka` names a broker that is not to be broken.

    Raises:
        SettingsError: there is nothing to break.
        NotReady: something did not start.
        BusUnavailable: the log cannot be read.
    """
    private = Path(tempfile.mkdtemp(prefix="chaos-"))
    prefix = f"{private.name}-" if kafka else "chaos-"
    plan = without_broker(plan) if kafka else plan
    outcome = Outcome(plan, logs, left_out=LEFT_OUT.format(prefix) if kafka else "")
    try:
        async with AsyncExitStack() as stack:
            deployment = Deployment(plan, Place(logs, private), kafka, prefix, stack)
            tell.phase("starting")
            await deployment.start(tell.step)
            await _break(deployment, outcome, tell)
            if plan.comparisons:
                outcome.plain = await _compare(deployment, outcome, tell)
            tell.phase("stopping")
            await deployment.stop()
    finally:
        await asyncio.to_thread(shutil.rmtree, private, ignore_errors=True)
    return outcome


async def _break(deployment: Deployment, outcome: Outcome, tell: Tell) -> None:
    plan = deployment.plan
    urls = [gateway.url for gateway in deployment.gateways]
    played = await asyncio.to_thread(recordings, plan)
    tell.phase("undisturbed")
    calm = Traffic(plan, urls, tell.turn, played=played, called=tell.call)
    await calm.once()
    outcome.undisturbed = calm.record

    tell.phase("disturbed", plan.minutes * 60)
    traffic = Traffic(plan, urls, tell.turn, played=counted(played, calm.record), called=tell.call)
    outcome.disturbed = traffic.record
    async with asyncio.TaskGroup() as tasks:
        clients = tasks.create_task(traffic.steadily())
        try:
            await disturb(deployment, traffic, tell)
        except* NotReady as group:
            traffic.record.troubles += [f"the run ended early: {error}" for error in group.exceptions]
        finally:
            traffic.finish()
        tell.step("the last answers")
        await asyncio.wait([clients], timeout=LAST_WORDS_S)
        clients.cancel()
    tell.phase("reading the log")
    outcome.log = await read(deployment)
    await compare([*outcome.undisturbed.calls, *outcome.disturbed.calls], outcome.log)
    outcome.verdict = judged(outcome.undisturbed, outcome.disturbed, outcome.log)


async def _compare(deployment: Deployment, outcome: Outcome, tell: Tell) -> Verdict:
    tell.phase("killing workers that have no standby")
    traffic = Traffic(deployment.plan, [gateway.url for gateway in deployment.gateways], tell.turn)
    await killed(deployment, traffic)
    log = await read(deployment)
    mark(traffic.record, log)
    return judged(outcome.undisturbed, traffic.record, log)


async def disturb(deployment: Deployment, traffic: Traffic, tell: Tell) -> None:
    """Do what the schedule says, each once what it concerns serves again; the time may be over before."""
    striker = Striker(deployment, traffic.clock, traffic.record.faults)
    plan = deployment.plan

    async def recover(struck: Struck) -> None:
        await striker.recovered(struck)
        tell.fault(struck)

    async with asyncio.TaskGroup() as recovering:
        for fault in schedule(plan):
            await asyncio.sleep(max(0.0, fault.at - traffic.clock()))
            if traffic.clock() >= plan.minutes * 60:
                break
            struck = await striker.strike(fault)
            tell.fault(struck)
            recovering.create_task(recover(struck))
        await asyncio.sleep(max(0.0, plan.minutes * 60 - traffic.clock()))


async def read(deployment: Deployment) -> Audit:
    """The log of the run."""
    async with KafkaBus(deployment.kafka) as bus:
        return await audit(bus)
