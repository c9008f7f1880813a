"""What `bus.py` found: of the records a system wrote, and of all rounds as rows of JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from apps.bench.bus_systems import OURS
from pipeline.bus import Record
from pipeline.messages import Prompt
from pipeline.topics import PROMPTS


class Result(NamedTuple):
    """What a system did of a backlog: messages a second, how many, if in order, and the processor time of each."""

    rate: float
    done: int
    ordered: bool
    cpu_us: float


Results = Mapping[tuple[float, int], Mapping[str, Sequence[Result]]]
"""By the handler's wait in milliseconds and the number of keys: what each system did in each round."""


def judged(records: Sequence[Record], spent: float) -> Result:
    """Messages a second after those that were written first, and whether each key's came in order."""
    times = [record.timestamp for record in records]
    last: dict[str, int] = {}
    ordered = True
    for record in records:
        prompt: Prompt = PROMPTS.decode(record.value)
        ordered &= last.get(prompt.session, -1) < int(prompt.turn)
        last[prompt.session] = int(prompt.turn)
    first = min(times, default=0)
    seconds = max(1, max(times, default=0) - first) / 1000
    return Result(
        (len(records) - times.count(first)) / seconds, len(records), ordered, spent / max(1, len(records)) * 1e6
    )


def ratios(results: Mapping[str, Sequence[Result]], peer: str) -> list[float]:
    """Ours against `peer`, round by round."""
    return [one.rate / other.rate for one, other in zip(results[OURS], results[peer], strict=True)]


def rows(results: Results) -> list[dict[str, Any]]:
    """One for each wait and number of keys, every round in it."""
    return [
        {
            "wait_ms": wait_ms,
            "keys": keys,
            "rounds": {name: [round(one.rate, 1) for one in found] for name, found in systems.items()},
            "done": {name: [one.done for one in found] for name, found in systems.items()},
            "cpu_us": {name: [round(one.cpu_us, 1) for one in found] for name, found in systems.items()},
            "ordered": {name: all(one.ordered for one in found) for name, found in systems.items()},
            "ratio": {
                name: {"median": round(median(found), 3), "least": round(min(found), 3), "most": round(max(found), 3)}
                for name in systems
                if name != OURS
                for found in [ratios(systems, name)]
            },
        }
        for (wait_ms, keys), systems in results.items()
    ]


def throughput(results: Results) -> Table:
    """The medians of the rounds beside each other, with the least and the most ratio."""
    names = list(next(iter(results.values())))
    compared = (f"{OURS} / {name}" for name in names[1:])
    drawn = Table("handler", "keys", *names, *compared, title="messages/s (processor time each), medians")
    for column in drawn.columns[1:]:
        column.justify = "right"
    for (wait_ms, keys), systems in results.items():
        found = [ratios(systems, name) for name in names[1:]]
        drawn.add_row(
            "trivial" if not wait_ms else f"awaits {wait_ms:g} ms",
            str(keys),
            *(_cell(results) for results in systems.values()),
            *(f"{median(one):.2f} ({min(one):.2f}–{max(one):.2f})" for one in found),
        )
    return drawn


def _cell(found: Sequence[Result]) -> str:
    rate, cpu = median(one.rate for one in found), median(one.cpu_us for one in found)
    order = "" if all(one.ordered for one in found) else ", no order"
    return f"{rate:,.0f} ({cpu:.0f} µs{order})"
