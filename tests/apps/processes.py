"""Penstock's programs as processes of their own, started by the very command a user types."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.guard import Guarded

READY_S = 90.0
STOP_S = 20.0
POLL_S = 0.1
OURS = {"PENSTOCK_MODEL_DISK_MB": "0"}
"""Tests leave nothing in the user's cache."""


class Penstock:
    """A running `penstock …`, whose readiness is asked on `port`. Its output is kept in `folder`."""

    def __init__(self, arguments: list[str], folder: Path, *, port: int, environment: Mapping[str, str]) -> None:
        self.name = " ".join(arguments)
        self.port = port
        self._log = folder / f"{arguments[0]}-{port}.log"
        variables = [f"{name}={value}" for name, value in {**OURS, **environment}.items()]
        self._child = Guarded(["env", *variables, sys.executable, "-m", "apps.cli", *arguments], self._log)

    @property
    def url(self) -> str:
        """Its address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace")

    async def ready(self) -> None:
        """Return when it serves; fail with its output if it ends or takes too long."""
        deadline = time.monotonic() + READY_S
        while not await asyncio.to_thread(self._serves):
            assert self._child.alive, f"penstock {self.name} ended:\n{self.log}"
            assert time.monotonic() < deadline, f"penstock {self.name} is not ready after {READY_S} s:\n{self.log}"
            await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        """Kill -9."""
        self._child.kill()

    def stop(self) -> int:
        """Ask it to stop, as a supervisor does, and return its exit status."""
        self._child.stop(STOP_S)
        return int(self._child._watcher.returncode)

    async def ended(self) -> int:
        """Wait until it has ended by itself, and return its exit status."""
        return int(await asyncio.to_thread(self._child._watcher.wait, READY_S))

    def _serves(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@contextlib.contextmanager
def started(
    *arguments: str, folder: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Penstock]:
    """A `penstock …` that is stopped in the end, whatever happens."""
    process = Penstock(list(arguments), folder, port=port, environment=environment or {})
    try:
        yield process
    finally:
        process.kill()
