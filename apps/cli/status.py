"""`penstock status`: the workers of every supervisor that runs on this machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.errors import UndecodableMessage

if TYPE_CHECKING:
    from apps.supervisor.words import Report

NONE_RUNS = 1
WIDE = 160


def status(
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON document, for programs.")] = False,
) -> None:
    """Show the workers of this user's supervisors here: ids, partitions, lag, restarts. Status 1 if none runs."""
    from apps.supervisor.runtime import folder

    console = Console(width=None if sys.stdout.isatty() else WIDE)
    complaints = Console(stderr=True)
    place = folder(os.environ)
    found = [one for path in sorted(place.glob("*.sock")) if (one := _asked(path, complaints)) is not None]
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif not found:
        complaints.print(
            f"no supervisor runs here (looked in {place}); start one with `penstock stage NAME --replicas 2`",
            highlight=False,
            soft_wrap=True,
        )
    else:
        from apps.supervisor.report import table

        for one in found:
            console.print(table(one, time.time()), "", highlight=False)
    if not found:
        raise typer.Exit(NONE_RUNS)


def _asked(path: Path, complaints: Console) -> Report | None:
    """The report of the supervisor at `path`; None, and a word on why, if there is none to be had."""
    from apps.supervisor.runtime import ask
    from apps.supervisor.words import report_of

    try:
        answer = ask(path)
        if answer is not None:
            return report_of(answer)
        path.unlink(missing_ok=True)
        why = "is a leftover of a supervisor that was killed; removed"
    except TimeoutError:
        why = "does not answer: its supervisor is stopped, or has no time"
    except (OSError, UndecodableMessage) as error:
        why = f"cannot be read: {error}"
    complaints.print(f"{path} {why}", style="dim", highlight=False, soft_wrap=True)
    return None
