"""`python -m tests.fuzz --inputs 100000`: throw that many inputs at all that takes any from outside."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.fuzz.guided import guided
from tests.fuzz.targets import TARGETS, Target


def shared(targets: Sequence[Target], inputs: int) -> dict[str, int]:
    """Return how many of all inputs each target gets: fewer where each takes longer."""
    parts = sum(1 / one.cost for one in targets)
    return {one.name: max(1, round(inputs / one.cost / parts)) for one in targets}


def thrown(target: Target, count: int, number: int, progress: Progress) -> str:
    """Throw `count` inputs at a target; returns what went wrong, with the smallest input that does it."""
    task = progress.add_task(target.name, total=count)

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def take(value: object) -> None:
        progress.advance(task)
        target.take(value)

    try:
        take()
    except Exception:  # noqa: BLE001 - whatever it is, is the finding
        return traceback.format_exc()
    progress.update(task, completed=count)  # of a small space of inputs there are no more
    return ""


def main() -> int:
    """Fuzz all targets, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="for all targets together")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="makes a run repeatable")
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    chosen = parser.parse_args()
    console = Console(stderr=True)
    targets = [target for target in TARGETS if chosen.only in target.name]
    counts = shared(targets, chosen.inputs)
    if chosen.engine == "atheris":
        return guided(counts, console)
    console.print(f"seed {chosen.seed}")
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began, wrong = time.monotonic(), 0
    with Progress(*columns, console=console) as progress:
        for target in targets:
            if found := thrown(target, counts[target.name], chosen.seed, progress):
                wrong += 1
                console.print(f"[bold red]{target.name}[/]", found, highlight=False, markup=False)
        total = int(sum(task.completed for task in progress.tasks))
    console.print(f"{total:,} inputs, {len(targets)} targets, {wrong} failed, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
