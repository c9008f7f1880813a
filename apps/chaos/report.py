"""What a run is told with: tables for people, JSON for programs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from apps.bench.report import table
from apps.chaos.run import Outcome
from apps.chaos.verdict import Verdict, takeovers

MOST_NAMED = 20


def folder_for(chosen: Path | None) -> Path:
    """Where the logs of a run go: the folder chosen, or a new one."""
    if chosen is None:
        return Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def tell(outcome: Outcome, console: Console, *, json: Path | None, page: Path | None) -> bool:
    """Show what a run has come to, and write it to the files that are named; whether all guarantees were kept."""
    verdict = outcome.verdict
    console.print(guarantees(outcome))
    for title, rows in (
        ("gap in streaming answers, from text to text", verdict.by_fault(verdict.gaps)),
        ("kill -9: from the signal to the next text", takeovers(verdict.gaps)),
        ("answers that had not begun: until their first text", verdict.by_fault(verdict.waits)),
    ):
        if rows:
            console.print(table(title, rows, unit="s"))
    for one in verdict.broken[:MOST_NAMED]:
        console.print(f"[red]broken:[/] {one.guarantee}: {one.who}: {one.how}", highlight=False, soft_wrap=True)
        console.print(f"        with {', '.join(one.faults) or 'no fault about it'}", highlight=False, soft_wrap=True)
    if len(verdict.broken) > MOST_NAMED:
        console.print(f"[red]and {len(verdict.broken) - MOST_NAMED} more[/]")
    if outcome.left_out:
        console.print(outcome.left_out, style="dim")
    return not verdict.broken


def guarantees(outcome: Outcome) -> Table:
    """The counts."""
    verdict, record = outcome.verdict, outcome.disturbed
    shown = Table(show_header=False, box=None)
    for name, value in facts(verdict).items():
        shown.add_row(name, str(value))
    shown.add_row("faults", str(len(record.faults)))
    shown.add_row("reconnects", str(record.reconnects))
    return shown


def facts(verdict: Verdict) -> Mapping[str, Any]:
    """What was counted, by the names people read."""
    return {
        "turns": verdict.turns,
        "terminal events per turn": ", ".join(f"{ends}: {n} turns" for ends, n in sorted(verdict.ends.items())),
        "statuses": ", ".join(f"{n} {status}" for status, n in sorted(verdict.statuses.items())),
        "characters lost / repeated": f"{verdict.lost} / {verdict.repeated}",
        "tokens lost": verdict.tokens_lost,
        "equal to the undisturbed answer": f"{verdict.equal} of {verdict.compared}",
    }
