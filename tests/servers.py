"""Programs and containers that can be killed, and started again on the same data. Knows no Kafka and no Redis."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from apps.broker.ports import HOST, unused_port
from tests.guard import Guarded

__all__ = ["HOST", "Container", "Program", "Server", "unused_port"]

STOP_DEADLINE_S = 10.0
TAIL_LINES = 40


class Server(Protocol):
    """A way to run a program that can be killed, and started again on the same data."""

    def start(self) -> None:
        """Start it, the first time or again."""

    def kill(self) -> None:
        """Kill -9."""

    def remove(self) -> None:
        """Stop it for good and leave nothing behind."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def log(self) -> str:
        """Return the end of what it said."""


class Program:
    """A server from a program on this machine, after `prepare` has run once."""

    def __init__(self, argv: list[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> None:
        self._argv = argv
        self._folder = folder
        self._output = folder / "output.log"
        self._prepare: Callable[[], None] | None = prepare
        self._child: Guarded | None = None

    def start(self) -> None:
        """Start it, the first time or again."""
        if self._prepare:
            self._prepare()
        self._prepare = None
        self._child = Guarded(self._argv, self._output, data=self._folder)

    def kill(self) -> None:
        """Kill -9."""
        if self._child:
            self._child.kill()

    def remove(self) -> None:
        """Stop it for good and leave nothing behind."""
        if self._child:
            self._child.stop(STOP_DEADLINE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.alive

    def log(self) -> str:
        """Return the end of what it said."""
        lines = self._output.read_text(errors="replace").splitlines() if self._output.exists() else []
        return "\n".join(lines[-TAIL_LINES:])


class Container(Program):
    """A server from an image; the attached `docker` is our child, and passes our signals on to the container."""

    def __init__(self, options: list[str], folder: Path) -> None:
        self._name = folder.name
        super().__init__(["docker", "run", "--name", self._name, *options], folder)

    def start(self) -> None:
        """Start it, the first time or again."""
        super().start()
        self._argv = ["docker", "start", "--attach", self._name]

    def kill(self) -> None:
        """Kill -9."""
        self._docker("kill", self._name)
        super().kill()

    def remove(self) -> None:
        """Stop it for good and leave nothing behind."""
        super().remove()
        self._docker("rm", "--force", "--volumes", self._name)

    @staticmethod
    def _docker(*arguments: str) -> None:
        subprocess.run(["docker", *arguments], capture_output=True, timeout=60, check=False)
