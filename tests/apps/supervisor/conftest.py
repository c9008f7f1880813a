"""A supervisor of fake workers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from apps.supervisor.crew import Plan, Supervisor
from apps.supervisor.process import Worker
from apps.supervisor.watchdog import Patience

DEADLINE_S = 20.0
POLL_S = 0.01
FAKE = Path(__file__).with_name("fake_worker.py")


class Event(NamedTuple):
    """What a fake worker noted: when (seconds since 1970), who (the `number`th that was started), and what."""

    at: float
    pid: int
    number: int
    what: str
    identity: str


class Crew:
    """A running supervisor, what its workers noted, and what they said."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.said: list[tuple[str, bytes]] = []
        self.lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
        self.supervisor = Supervisor(plan, self._told, lock=self.lock)
        self.stop = asyncio.Event()
        self.running = asyncio.create_task(self.supervisor.run(self.stop))

    def _told(self, worker: Worker, line: bytes) -> None:
        self.said.append((worker.name, line))

    @property
    def events(self) -> list[Event]:
        """All that was noted, in order."""
        path = self.folder / "events"
        found = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [Event(float(at), int(pid), int(n), what, "".join(rest)) for at, pid, n, what, *rest in found]

    def takes(self, identity: str) -> list[Event]:
        """Who took that id, one after the other."""
        return [event for event in self.events if event.what in ("take", "twice") and event.identity == identity]

    def worker(self, number: int) -> Worker:
        """The worker that has the id of that number."""
        worker = self.supervisor.seats[number].worker
        assert worker is not None
        return worker

    async def until(self, holds: Callable[[], object]) -> None:
        """Return once `holds` is true."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(POLL_S)

    async def ready(self, *, standbys: int = 0) -> None:
        """Return once each id is served, and so many standbys wait."""
        await self.until(lambda: self._ready(standbys))

    def _ready(self, standbys: int) -> bool:
        seated = all(seat.worker and seat.worker.phase == "serving" for seat in self.supervisor.seats)
        warm = [worker for worker in self.supervisor.workers if worker.phase == "warm" and not worker.identity]
        return seated and len(warm) >= standbys

    async def ended(self) -> None:
        """Wait for the supervisor's end, and raise what ended it."""
        async with asyncio.timeout(DEADLINE_S):
            await self.running


Started = Callable[..., Any]


@pytest.fixture
def crew(tmp_path: Path) -> Started:
    """Give what starts a supervisor: `crew(behaviours, replicas=…, …)` is a context with a `Crew`."""

    @asynccontextmanager
    async def started(*behaviours: dict[str, Any], **changes: Any) -> AsyncIterator[Crew]:
        (tmp_path / "behaviour.json").write_text(json.dumps(behaviours))
        plan = Plan(
            stage="llm",
            base="test-llm",
            command=[sys.executable, "-I", "-S", str(FAKE), str(tmp_path)],
            replicas=1,
            standby=0,
            patience=Patience(silent_s=1.0, load_s=10.0, step_s=5.0, stalled_s=1.0),
            first_s=0.05,
            most_s=0.4,
            settled_s=30.0,
            drain_s=5.0,
        )
        one = Crew(tmp_path, replace(plan, **changes))
        try:
            yield one
        finally:
            one.running.cancel()
            await asyncio.gather(one.running, return_exceptions=True)
            os.close(one.lock)
        assert not [event for event in one.events if event.what == "twice"], "two processes had one id"

    return started
