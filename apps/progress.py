"""Show that something slow is going on: a bar with the time on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

log = logging.getLogger(__name__)

Tell = Callable[[str, float | None], None]


@contextmanager
def progress(what: str) -> Generator[Tell, None, None]:
    """Show `what` while it goes on, with what it tells meanwhile (any thread may), and how long it took."""
    console = Console(stderr=True)
    begun = time.perf_counter()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as shown:
            task = shown.add_task(what, total=None)
            yield lambda step, share: shown.update(
                task, description=f"{what}: {step}", total=None if share is None else 1.0, completed=share or 0.0
            )
        console.print(f"[green]✓[/] {what} ({time.perf_counter() - begun:.1f} s)", highlight=False)
    else:
        log.info("%s ...", what)
        yield lambda step, share: log.debug("%s: %s", what, step)
        log.info("%s: done after %.1f s", what, time.perf_counter() - begun)
