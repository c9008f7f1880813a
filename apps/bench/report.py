"""What a measurement is told with: percentiles with n, the machine, a table for people and JSON for the README."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table


class Spread(NamedTuple):
    """Percentiles of `n` values, in the values' own unit; nearest rank, so each is a value that occurred."""

    n: int
    p50: float
    p95: float
    p99: float
    max: float


def spread(values: Iterable[float]) -> Spread:
    """The percentiles of `values`, of which there is at least one."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Spread(len(ordered), rank(0.50), rank(0.95), rank(0.99), ordered[-1])


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def table(title: str, rows: Mapping[str, Spread], *, unit: str) -> Table:
    """`rows` of percentiles for people."""
    drawn = Table("", "n", "p50", "p95", "p99", "max", title=f"{title} ({unit})", title_justify="left")
    for column in drawn.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        drawn.add_row(name, str(row.n), *(f"{value:.2f}" for value in row[1:]))
    return drawn


@contextmanager
def measuring(what: str, steps: int) -> Generator[Callable[[], None], None, None]:
    """A bar on the terminal meanwhile; each call of what is given moves it on by one of `steps`."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=steps)
        yield lambda: progress.advance(bar)


def told(result: Mapping[str, Any], tables: Sequence[Table], remarks: Sequence[str], path: Path | None) -> None:
    """Show the tables and remarks, and write `result` with machine and command to `path`."""
    console = Console()
    for one in tables:
        console.print(one)
    where = machine()
    console.print(f"{where['cores']} cores of {where['cpu']}, load {where['load']}, Python {where['python']}")
    for remark in remarks:
        console.print(remark, style="dim", highlight=False, markup=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"command": _command(), "machine": where, **result}, indent=2) + "\n", encoding="utf-8"
        )
        console.print(f"written to {path}", style="dim")


def _command() -> str:
    """How to measure it again: a path of this machine is told from here, or by its name alone."""
    return " ".join(["penstock", *(_anywhere(word) for word in sys.argv[1:])])


def _anywhere(word: str) -> str:
    option, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return word
    here = Path.cwd()
    return f"{option}{equals}{path.relative_to(here) if path.is_relative_to(here) else path.name}"
