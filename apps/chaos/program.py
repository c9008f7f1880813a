"""Programs that a run starts: each with its output in a file, ended by its own id, and none that outlives the run."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from pipeline.errors import PenstockError

PR_SET_PDEATHSIG = 1
KILLED_S = 10.0
POLL_S = 0.05
TAIL_LINES = 12
ANSWER_S = 2.0


class NotReady(PenstockError):
    """A program ended, or was not ready in time."""


class Program:
    """A program with its own log. Its id is kept, so that nothing else can be struck."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._argv, self._environment = argv, environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, the first time or again."""
        assert not self.alive
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C reaches this program alone, which ends the others in good order
                preexec_fn=_die_with_parent,
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill -9, and return when it is gone."""
        self.send(signal.SIGKILL)
        await self._gone(KILLED_S)

    async def stop(self, seconds: float) -> int | None:
        """Ask it to end, and after `seconds` make it; its exit status."""
        if not self.alive:
            return self._process.returncode if self._process else None
        self.send(signal.SIGTERM)
        return await self.ended(seconds)

    async def ended(self, seconds: float) -> int | None:
        """Wait until it has ended by itself, and kill it after `seconds`; its exit status."""
        if not await self._gone(seconds):
            await self.kill()
        return self._process.returncode if self._process else None

    async def _gone(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def tail(self) -> str:
        """The end of what it said."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-TAIL_LINES:])

    def refuse_dead(self) -> None:
        """Raise where it has ended by itself.

        Raises:
            NotReady: it has.
        """
        if not self.alive:
            raise NotReady(f"{self.name} has ended; {self.log} ends:\n{self.tail()}")


def penstock(name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Program:
    """The command `penstock ARGUMENTS` as a program."""
    return Program(name, [sys.executable, "-m", "apps.cli", *arguments], folder / f"{name}.log", environment)


async def fetched(url: str) -> str | None:
    """What `url` answers with; None if nobody answers, or not with 200."""
    return await asyncio.to_thread(_fetched, url)


def _fetched(url: str) -> str | None:
    try:
        with urlopen(url, timeout=ANSWER_S) as answer:
            return str(answer.read().decode()) if answer.status == 200 else None
    except (URLError, OSError):
        return None


def _die_with_parent() -> None:
    """Have the kernel kill this process with its parent (Linux; elsewhere a kill -9 of the parent leaves it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def plain_environment() -> dict[str, str]:
    """This program's environment without settings of Penstock's: a run brings its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "KAFKA_"))}
