"""Telling how a run goes while it goes: a live display on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar

from apps.chaos.record import Call, Struck, Turn
from apps.chaos.run import Tell

log = logging.getLogger(__name__)


class Quiet:
    """Log lines: a phase and a fault are told, a turn only where it did not go well."""

    def phase(self, what: str, seconds: float | None = None) -> None:
        """See `Tell`."""
        log.info("%s%s", what, f" for {seconds:.0f} s" if seconds else "")

    def step(self, what: str) -> None:
        """See `Tell`."""
        log.debug("%s", what)

    def turn(self, turn: Turn) -> None:
        """See `Tell`."""
        if not turn.complete:
            log.warning("%s: %s", turn.label, turn.error or turn.ends)

    def call(self, call: Call) -> None:
        """See `Tell`."""
        if call.error:
            log.warning("%s: %s", call.label, call.error)

    def fault(self, struck: Struck) -> None:
        """See `Tell`."""
        if struck.until is None:
            log.info("%.1f s: %s", struck.at, struck.fault.name)
        else:
            log.info("%.1f s: %s: all serve again %s", struck.until, struck.label, struck.note)


class TimeBar(BarColumn):
    """How much of a phase's time is over."""

    def render(self, task: Task) -> ProgressBar:
        """See `BarColumn`."""
        task.completed = min(task.elapsed or 0.0, task.total or 0.0)
        return super().render(task)


class Live:
    """A bar for the time, what has been asked and answered, and the faults above it as they come."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None, said="")
        self._ends: Counter[str] = Counter()
        self._faults = 0
        self._step = ""

    def phase(self, what: str, seconds: float | None = None) -> None:
        """See `Tell`."""
        self._ends.clear()
        self._step = ""
        self._progress.reset(self._task, total=seconds, description=what, said="")

    def step(self, what: str) -> None:
        """See `Tell`."""
        self._step = what
        self._show()

    def turn(self, turn: Turn) -> None:
        """See `Tell`."""
        self._ends[turn.ends[0] if turn.ends else "without an end"] += 1
        if not turn.complete:
            self._progress.console.print(f"  [red]{turn.label}: {turn.error or turn.ends}[/]", highlight=False)
        self._show()

    def call(self, call: Call) -> None:
        """See `Tell`."""
        self._ends["calls"] += 1
        if call.error:
            self._progress.console.print(f"  [red]{call.label}: {call.error}[/]", highlight=False)
        self._show()

    def fault(self, struck: Struck) -> None:
        """See `Tell`."""
        if struck.until is None:
            self._faults += 1
            self._step = f"{struck.fault.name}: until all serve again"
        else:
            took = f"all serve again after {struck.until - struck.at:.1f} s"
            self._progress.console.print(f"  {struck.at:7.1f} s  {struck.label}: {took} {struck.note}", highlight=False)
            self._step = ""
        self._show()

    def _show(self) -> None:
        said = ", ".join(f"{count} {end}" for end, count in self._ends.items())
        self._progress.update(self._task, said=" · ".join(part for part in (said, self._step) if part))


@contextmanager
def telling(console: Console) -> Generator[Tell, None, None]:
    """What tells, as the console allows."""
    if not console.is_terminal:
        yield Quiet()
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), TimeBar(24), TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Live(progress)
