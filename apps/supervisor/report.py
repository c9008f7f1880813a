"""How a supervisor's workers are: a report, and its table for people."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from apps.supervisor.crew import Seat, Slot, Supervisor
from apps.supervisor.process import Worker
from apps.supervisor.words import Report, Role, Row

STYLES: dict[Role, str] = {
    "active": "green",
    "standby": "cyan",
    "starting": "yellow",
    "draining": "yellow",
    "backing off": "bold red",
}
MINUTE, HOUR, DAY = 60, 3600, 86400


def report(supervisor: Supervisor) -> Report:
    """How the workers of `supervisor` are now: a row for each id, and then one for each that has none.

    An id without a worker is shown with the slot that will most likely fill it.
    """
    plan = supervisor.plan
    blanks = [slot for slot in supervisor.slots if slot.worker is None or not slot.worker.identity]
    blanks.sort(key=lambda slot: slot.worker is None)
    rows = []
    for seat in supervisor.seats:
        if seat.worker is not None:
            rows.append(_row(seat.worker, seat.name, seat))
        elif blanks:
            rows.append(_waiting(blanks.pop(0), seat))
    rows += [_row(slot.worker, plan.stage) if slot.worker else _absent(slot, plan.stage) for slot in blanks]
    return Report(plan.base, plan.stage, os.getpid(), supervisor.since, plan.replicas, plan.standby, rows)


def _row(worker: Worker, name: str, seat: Seat | None = None) -> Row:
    beat = worker.beat
    return Row(
        name,
        worker.identity,
        _role(worker),
        pid=worker.pid,
        note=beat.note,
        parts=beat.parts,
        lag=beat.lag,
        in_hand=beat.in_hand,
        restarts=seat.restarts if seat else 0,
        reason=seat.reason if seat else "",
        since=worker.since,
    )


def _role(worker: Worker) -> Role:
    match worker.phase:
        case "draining":
            return "draining"
        case "serving":
            return "active"
        case "warm" if not worker.identity:
            return "standby"
        case _:
            return "starting"


def _waiting(slot: Slot, seat: Seat) -> Row:
    row = _row(slot.worker, seat.name, seat) if slot.worker else _absent(slot, seat.name)
    row.identity, row.restarts, row.reason = seat.identity, seat.restarts, seat.reason or slot.reason
    row.role = "starting" if slot.worker else row.role
    return row


def _absent(slot: Slot, name: str) -> Row:
    left = max(0.0, slot.until - time.monotonic())
    return Row(name, "", "backing off", note=f"the next attempt in {left:.0f} s", reason=slot.reason)


def problem(found: Report) -> str:
    """Why the stage does not serve as it should; nothing if it does."""
    waiting = [row for row in found.workers if row.identity and (row.role != "active" or row.note)]
    return "; ".join(f"{row.name}: {row.note or row.role}" for row in waiting)


def table(found: Report, now: float) -> Table:
    """The report as a table. `now` in seconds since 1970."""
    title = f"{found.stage}: supervisor {found.pid}, {_span(now - found.since)}, {found.replicas} + {found.standby}"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("worker", "id", "pid", "role", "partitions", "lag", "in hand", "restarts", "up", "what and why"):
        right = name in ("pid", "lag", "in hand", "restarts", "up")
        shown.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in found.workers:
        shown.add_row(*_cells(row, now))
    return shown


def _cells(row: Row, now: float) -> list[str | Text]:
    note = "" if row.note == row.role else row.note
    why = "; ".join(part for part in (note, f"last: {row.reason}" if row.reason else "") if part)
    return [
        row.name,
        row.identity or "-",
        str(row.pid or "-"),
        Text(row.role, STYLES[row.role]),
        parts_text(row.parts) or "-",
        "-" if row.lag is None else str(row.lag),
        str(row.in_hand),
        str(row.restarts),
        "-" if row.since is None else _span(now - row.since),
        Text(why),
    ]


def parts_text(parts: Sequence[str]) -> str:
    """Partitions in short: prompts 0-3,6."""
    numbers: dict[str, list[int]] = {}
    for part in parts:
        topic, _, number = part.rpartition("-")
        numbers.setdefault(topic, []).append(int(number))
    return " ".join(f"{topic} {','.join(_ranges(sorted(found)))}" for topic, found in numbers.items())


def _ranges(numbers: Iterable[int]) -> Iterator[str]:
    first = last = None
    for number in [*numbers, None]:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            yield str(first) if first == last else f"{first}-{last}"
        first = last = number


def _span(seconds: float) -> str:
    """A length of time in short: 42s, 3m12s, 5h03m, 2d04h."""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02}m"
    return f"{whole // DAY}d{whole % DAY // HOUR:02}h"
