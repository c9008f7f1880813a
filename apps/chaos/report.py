"""What a run is told with: tables for people, JSON for programs, a page for both."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from apps.bench.report import Spread, machine, table
from apps.chaos.answers import silences
from apps.chaos.page import page
from apps.chaos.run import Outcome
from apps.chaos.spoken import Spoken
from apps.chaos.verdict import Verdict, steps, takeovers

MOST_NAMED = 20
LATE_S = 1.0
"""Seconds by which the clients may be late before that is told."""


def folder_for(chosen: Path | None) -> Path:
    """Where the logs of a run go: the folder chosen, or a new one."""
    if chosen is None:
        return Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def tell(outcome: Outcome, console: Console, *, json: Path | None, html: Path | None) -> bool:
    """Show what a run has come to, and write it to the files that are named; whether all guarantees were kept."""
    broken = outcome.broken
    shown = Table(show_header=False, box=None)
    for name, value in facts(outcome).items():
        shown.add_row(name, str(value))
    console.print(shown, highlight=False)
    for title, rows in spreads(outcome).items():
        if rows:
            console.print(table(title, rows, unit="s"))
    for one in broken[:MOST_NAMED]:
        console.print(f"[red]broken:[/] {one.guarantee}: {one.who}: {one.how}", highlight=False, soft_wrap=True)
        console.print(f"        at {', '.join(one.faults) or 'no fault about it'}", highlight=False, soft_wrap=True)
    if len(broken) > MOST_NAMED:
        console.print(f"[red]and {len(broken) - MOST_NAMED} more[/]; --json has all")
    for line in subtitle(outcome):
        console.print(line, style="dim", highlight=False, soft_wrap=True)
    _write(json, jsonlib.dumps(document(outcome), indent=2) + "\n", console)
    _write(html, _page(outcome), console)
    return not broken


def _write(path: Path | None, text: str, console: Console) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        console.print(f"written to {path}", style="dim", highlight=False)


def facts(outcome: Outcome) -> Mapping[str, Any]:
    """What was counted, by the names people read."""
    verdict, record = outcome.verdict, outcome.disturbed
    return {
        "turns": verdict.turns,
        "terminal events per turn": ", ".join(f"{ends} ({n} turns)" for ends, n in sorted(verdict.ends.items())) or "-",
        "how they ended": ", ".join(f"{n} {status}" for status, n in sorted(verdict.statuses.items())) or "-",
        "characters lost / told twice": f"{verdict.lost} / {verdict.repeated}",
        "tokens lost": verdict.tokens_lost,
        "equal to the undisturbed answer": f"{verdict.equal} of {verdict.compared}",
        "faults": len(record.faults),
        "put off while the log was away": verdict.put_off,
        "reconnects of clients": record.reconnects,
        "records of former owners that did not count": verdict.fenced,
        **(_spoken(verdict.spoken) if outcome.plan.voices else {}),
    }


def _spoken(spoken: Spoken) -> Mapping[str, Any]:
    return {
        "calls, and turns of speech in them": f"{spoken.calls}, {spoken.turns}",
        "words heard": spoken.words,
        "words lost / heard twice": f"{spoken.lost} / {spoken.repeated}",
        "equal to the undisturbed turn": f"{spoken.equal} of {spoken.compared}",
        "transcripts said again by a new owner": spoken.again,
        "reconnects of callers, and seconds they sent again": f"{spoken.reconnects}, {spoken.sent_again:.1f}",
        "spoken answers": spoken.answers.answers,
        "sounding as where nothing breaks": f"{spoken.answers.exact} of {spoken.answers.sounded}",
        "seconds of answers heard / said again by a new owner": (
            f"{spoken.answers.seconds:.0f} / {spoken.answers.again:.1f}"
        ),
        "spoken answers put off while the log was away": spoken.answers.put_off,
    }


def spreads(outcome: Outcome) -> Mapping[str, Mapping[str, Spread]]:
    """All percentiles, in seconds, by what they are of."""
    verdict = outcome.verdict
    found = {
        "Gap in streaming answers, from text to text": verdict.by_fault(verdict.gaps),
        "Kill -9 of a worker, from the signal to the next text": takeovers(verdict.gaps),
        "What that is made of in the LLM stage": steps(verdict.gaps, outcome.disturbed, outcome.log),
        "Answers that had not begun, from the fault to their first text": verdict.by_fault(verdict.waits),
        "Silence in spoken answers": silences(outcome.disturbed, outcome.log),
    }
    if outcome.plain is not None:
        found["The same without supervisor and standby"] = takeovers(outcome.plain.gaps)
    return found


def subtitle(outcome: Outcome) -> list[str]:
    """How the run was."""
    plan, where = outcome.plan, machine()
    how = (
        f"Seed {plan.seed}, {outcome.disturbed.seconds:.0f} s with {plan.clients} clients; each stage with "
        f"{plan.replicas} workers and {plan.standby} standby, {plan.gateways} gateways; "
        f"{plan.model or 'the demo model'}, resting {plan.pace * 1000:.0f} ms after each token."
    )
    if plan.voices:
        how += f" {plan.voices} clients speak; {plan.asr or 'the demo recogniser'} hears them."
    if outcome.disturbed.late > LATE_S:
        how += f" The clients themselves were late by up to {outcome.disturbed.late:.1f} s: the machine had no time."
    lines = [
        how,
        f"{where['cores']} cores of {where['cpu']}, load {where['load']}, Python {where['python']}, {where['date']}.",
    ]
    return [*lines, *([f"{outcome.left_out}."] if outcome.left_out else []), f"Logs of all programs: {outcome.logs}"]


def document(outcome: Outcome) -> dict[str, Any]:
    """The report for programs."""
    verdict, record = outcome.verdict, outcome.disturbed
    return {
        "command": " ".join(["penstock", *sys.argv[1:]]),
        "machine": machine(),
        "plan": asdict(outcome.plan),
        "seconds": round(record.seconds, 1),
        "kept": not outcome.broken,
        **_counts(verdict),
        "reconnects": record.reconnects,
        "late": round(record.late, 3),
        "faults": dict(sorted(Counter(one.fault.name for one in record.faults).items())),
        "seconds_by": {
            title: {name: _rounded(row) for name, row in rows.items()} for title, rows in spreads(outcome).items()
        },
        "broken": [one._asdict() for one in outcome.broken],
        "left_out": outcome.left_out,
    }


def _counts(verdict: Verdict) -> dict[str, Any]:
    return {
        "turns": verdict.turns,
        "terminal_events": {str(ends): n for ends, n in sorted(verdict.ends.items())},
        "statuses": dict(sorted(verdict.statuses.items())),
        "characters_lost": verdict.lost,
        "characters_repeated": verdict.repeated,
        "tokens_lost": verdict.tokens_lost,
        "put_off": verdict.put_off,
        "equal": verdict.equal,
        "compared": verdict.compared,
        "fenced": verdict.fenced,
        "spoken": {name: value for name, value in asdict(verdict.spoken).items() if name != "broken"},
    }


def _rounded(row: Spread) -> dict[str, float]:
    return {name: round(value, 3) for name, value in row._asdict().items()}


def _page(outcome: Outcome) -> str:
    return page(
        title="Penstock chaos",
        subtitle=subtitle(outcome),
        facts=facts(outcome),
        tables={f"{title} (seconds)": rows for title, rows in spreads(outcome).items()},
        broken=outcome.broken,
        record=outcome.disturbed,
        plan=outcome.plan,
    )
