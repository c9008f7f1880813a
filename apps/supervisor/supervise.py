"""What `penstock stage NAME --replicas N` runs: a supervisor with its lock, its socket, its health and its log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import partial

import msgspec

from apps.health import serving
from apps.parts import check_names
from apps.settings import Settings
from apps.supervisor.crew import Plan, Supervisor
from apps.supervisor.metrics import app
from apps.supervisor.output import Style, named, to_stderr
from apps.supervisor.process import Worker
from apps.supervisor.report import report
from apps.supervisor.runtime import file_name, folder, locked, told
from apps.supervisor.watchdog import Patience

log = logging.getLogger(__name__)

SUPERVISED = "--supervised"
ENDS_OPTIONS = "--"


async def supervise(names: Sequence[str], arguments: Sequence[str], settings: Settings, stop: asyncio.Event) -> None:
    """Keep workers of the stages called `names` alive until `stop`; each is this command, started with `arguments`.

    Raises:
        SettingsError: there are no such stages.
        SupervisorRunning: another one keeps workers of the same ids.
        AddressInUse: another program listens on the port for health.
        WorkersFailed: not one worker could start, all for the same lasting reason.
    """
    plan = plan_of(check_names(names), command(arguments, style_of(settings)), settings)
    await keep(plan, settings, stop)


async def keep(plan: Plan, settings: Settings, stop: asyncio.Event) -> None:
    """Keep the workers of `plan` alive until `stop`. Raises what `supervise` does."""
    place = folder(os.environ) / file_name(plan.base)
    async with locked(place.with_name(f"{place.name}.lock"), plan.base) as lock:
        supervisor = Supervisor(plan, partial(_tell, style_of(settings)), lock=lock)
        async with (
            told(place.with_name(f"{place.name}.sock"), lambda: msgspec.json.encode(report(supervisor))),
            serving(app(supervisor), settings.health.host, settings.health.port),
        ):
            await supervisor.run(stop)
    log.info("%s: stopped", plan.stage)


def plan_of(names: Sequence[str], command: Sequence[str], settings: Settings) -> Plan:
    """What to supervise, by the settings."""
    chosen = settings.supervisor
    stage = "+".join(names)
    base = f"{settings.kafka.topic_prefix}{stage}-{chosen.name or socket.gethostname()}"
    return Plan(
        stage=stage,
        base=re.sub(r"[^A-Za-z0-9._-]", ".", base),  # what Kafka allows in a member's identity
        command=command,
        replicas=max(1, chosen.replicas),
        standby=chosen.standby,
        patience=Patience(chosen.silent_s, chosen.load_s, chosen.step_s, chosen.stalled_s),
        first_s=chosen.first_s,
        most_s=chosen.most_s,
        settled_s=chosen.settled_s,
        drain_s=settings.stage.drain_s,
    )


def command(arguments: Sequence[str], style: Style) -> list[str]:
    """What starts a worker: the same command once more, so that it has the same settings, but for its own part."""
    same = [one for one in arguments if one != ENDS_OPTIONS]
    own = ["--set", "health.port=0", "--set", f"log.format={style}", SUPERVISED]
    return [sys.executable, "-m", "apps.cli", *same, *own]


def style_of(settings: Settings) -> Style:
    """How lines of the log look: the workers' as our own."""
    if settings.log.format == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return settings.log.format


def _tell(style: Style, worker: Worker, line: bytes) -> None:
    to_stderr(named(line, worker.name, style))
