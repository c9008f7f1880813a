"""A supervisor process of fake workers: `fake_supervisor.py FOLDER REPLICAS STANDBY [HEALTH_PORT]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from apps.cli.running import run
from apps.settings import HealthSettings, LogSettings, Settings
from apps.supervisor.crew import Plan
from apps.supervisor.supervise import keep
from apps.supervisor.watchdog import Patience


def main(folder: str, replicas: str, standby: str, port: str = "0") -> None:
    """Run it as the command would."""
    fake = Path(__file__).with_name("fake_worker.py")
    command = [sys.executable, "-I", "-S", str(fake), folder]
    plan = Plan(
        stage="llm",
        base="test-llm",
        command=command,
        replicas=int(replicas),
        standby=int(standby),
        patience=Patience(silent_s=5.0, load_s=600.0, step_s=60.0, stalled_s=30.0),
        first_s=1.0,
        most_s=30.0,
        settled_s=10.0,
        drain_s=5.0,
    )
    settings = Settings(health=HealthSettings(port=int(port)), log=LogSettings(format="text"))

    async def program(chosen: Settings, stop: asyncio.Event) -> None:
        await keep(plan, chosen, stop)

    run(program, settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
