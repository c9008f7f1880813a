"""Everything that serves in a run, as processes: a broker, gateways, and the workers of each stage."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from apps.broker.ports import unused_port
from apps.chaos.broker import Broker
from apps.chaos.plan import Plan
from apps.chaos.program import NotReady, Program, fetched, penstock, plain_environment
from apps.supervisor.runtime import ask, file_name
from apps.supervisor.words import Report, Row, report_of
from pipeline.kafka import KafkaSettings, create_topics
from pipeline.topics import ROUTE

READY_S = 240.0
STOP_S = 15.0
POLL_S = 0.05
SUPERVISOR = "chaos"


class Place(NamedTuple):
    """Folders of a run: `logs` are kept, `private` is not; the latter's path is short enough for sockets."""

    logs: Path
    private: Path


class Gateway:
    """A gateway, which keeps its port over restarts."""

    def __init__(self, number: int, logs: Path, environment: dict[str, str]) -> None:
        self.number = number
        self.port = unused_port()
        self.program = penstock(f"gateway-{number}", ["gateway", "--port", str(self.port)], logs, environment)

    @property
    def url(self) -> str:
        """Its address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    async def ready(self) -> bool:
        """Whether it lets clients in."""
        return await fetched(f"http://127.0.0.1:{self.port}/readyz") is not None


class Supervised:
    """The workers of one stage, under their supervisor."""

    def __init__(self, stage: str, plan: Plan, place: Place, prefix: str, environment: dict[str, str]) -> None:
        self.stage = stage
        self._plan = plan
        options = ["--replicas", str(plan.replicas), "--standby", str(plan.standby)]
        self.program = penstock(stage, ["stage", stage, *options], place.logs, environment)
        name = file_name(f"{prefix}{stage}-{SUPERVISOR}")
        self._socket = place.private / "penstock" / f"{name}.sock"

    async def report(self) -> Report | None:
        """What the supervisor says of its workers; None while it says nothing."""
        try:
            answer = await asyncio.to_thread(ask, self._socket)
        except TimeoutError:
            return None
        return report_of(answer) if answer else None

    async def rows(self) -> list[Row]:
        """Its workers."""
        report = await self.report()
        return report.workers if report else []

    async def ready(self) -> bool:
        """Whether every id is served and every standby waits."""
        roles = [row.role for row in await self.rows()]
        return roles.count("active") == self._plan.replicas and roles.count("standby") == self._plan.standby


class Deployment:
    """Starts and ends all processes of a run. `kafka` is a broker that was given, or None for one of its own."""

    def __init__(self, plan: Plan, place: Place, kafka: str | None, prefix: str, stack: AsyncExitStack) -> None:
        self.plan, self.place = plan, place
        self.broker = None if kafka else Broker(place.private, place.logs)
        bootstrap = kafka or (self.broker.bootstrap if self.broker else "")
        self.kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix)
        self._stack = stack
        self.environment = {
            **plain_environment(),
            "PENSTOCK_CONFIG": str(place.logs / "penstock.toml"),
            "XDG_RUNTIME_DIR": str(place.private),
        }
        self.gateways = [Gateway(n, place.logs, self.environment) for n in range(plan.gateways)]
        self.stages = {name: Supervised(name, plan, place, prefix, self.environment) for name in plan.stages}

    @property
    def names(self) -> frozenset[str]:
        """The names of all that serves."""
        return frozenset(one.program.name for one in self._served)

    @property
    def _served(self) -> list[Gateway | Supervised]:
        return [*self.gateways, *self.stages.values()]

    async def start(self, tell: Callable[[str], None]) -> None:
        """Start everything, and return when it serves.

        Raises:
            NotReady: something does not.
        """
        self._configure()
        if self.broker is not None:
            tell("starting Kafka")
            self._stack.push_async_callback(self.broker.stop)
            await self.broker.start()
        await create_topics(self.kafka, ROUTE, partitions=self.plan.partitions)
        programs = [one.program for one in self._served]
        for program in programs:
            self._stack.push_async_callback(program.kill)
            await program.start()
        await self.settled(READY_S, tell)

    def _configure(self) -> None:
        """One file of settings for all programs, which also tells afterwards how they were set."""
        plan, secret = self.plan, self.place.private / "secret"
        secret.write_text(secrets.token_hex(32))
        sections: dict[str, dict[str, object]] = {
            "gateway": {"secret": f"file:{secret}"},  # the same for all, so that clients come back to any
            "gateway.audio": {"hears": bool(plan.voices), "speaks": bool(plan.voices)},
            "asr": {"model": plan.asr},
            "kafka": {"bootstrap": self.kafka.bootstrap, "topic_prefix": self.kafka.topic_prefix},
            "model": {"name": plan.model, "pace_s": plan.pace, "disk_mb": 0},
            "supervisor": {"name": SUPERVISOR, "settled_s": 1.0},  # deaths are what a run is for
        }
        lines = [
            f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
            for section, values in sections.items()
        ]
        (self.place.logs / "penstock.toml").write_text("\n".join(lines))

    async def settled(
        self, seconds: float, tell: Callable[[str], None] = lambda what: None, *, only: Collection[str] = ()
    ) -> None:
        """Return when everything serves again, or `only` the programs of these names.

        Raises:
            NotReady: within `seconds` something did not.
        """
        waiting = {one.program.name: one for one in self._served if not only or one.program.name in only}
        try:
            async with asyncio.timeout(seconds):
                while waiting:
                    tell(f"waiting for {', '.join(waiting)}")
                    for name, one in list(waiting.items()):
                        one.program.refuse_dead()
                        if await one.ready():
                            del waiting[name]
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise NotReady(f"not ready within {seconds:.0f} s: {', '.join(waiting)}; see {self.place.logs}") from None

    def stage(self, name: str, arguments: Sequence[str] = ()) -> Program:
        """A worker of stage `name` without a supervisor, not started yet."""
        number = len(list(self.place.logs.glob(f"{name}-plain-*.log")))
        program = penstock(f"{name}-plain-{number}", ["stage", name, *arguments], self.place.logs, self.environment)
        program.log.touch()
        self._stack.push_async_callback(program.kill)
        return program

    async def stop(self) -> None:
        """End all programs in good order, the gateways first; what takes too long is killed."""
        groups: tuple[Iterable[Gateway | Supervised], ...] = (self.gateways, self.stages.values())
        for group in groups:
            await asyncio.gather(*(one.program.stop(STOP_S) for one in group))
