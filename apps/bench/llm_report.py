"""What a contest came to: tables for people, figures for the README, and the aims beside them. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from apps.bench.llm_contest import Figures, Middle, Rounds, Serves, differences, figures, ratio
from apps.bench.report import Spread

OFF, DRAFT, NGRAM, AUTO = "penstock", "penstock, draft", "penstock, n-gram", "penstock, both"
GENERATE, ASSISTED, LOOKUP = "generate", "assisted, draft", "assisted, lookup"
CONTINUOUS = "continuous batching"
LLAMA, LLAMA_DRAFT, LLAMA_LOOKUP = "llama.cpp", "llama.cpp, draft", "llama.cpp, lookup"

SERVED: Mapping[Serves, str] = {"continuous batch": "", "padded batch": "padded batch", "one after another": "in turn"}


class Width(NamedTuple):
    """The rounds of all at `streams` streams."""

    streams: int
    rounds: Rounds
    serves: Mapping[str, Serves]

    @property
    def figures(self) -> dict[str, Figures]:
        """By contestant."""
        reference = next(iter(self.rounds.values()))
        return {name: figures(rounds, reference) for name, rounds in self.rounds.items()}


class Aim(NamedTuple):
    """`ours` shall say at least `least` times as many tokens a second as `other`, at `streams` streams (none: at any).

    Of the `pairs` named only, if any are.
    """

    ours: str
    other: str
    least: float
    streams: int | None = None
    pairs: tuple[str, ...] = ()


AIMS = (
    Aim(OFF, GENERATE, 1.5, streams=1),
    Aim(DRAFT, GENERATE, 3.0, streams=1, pairs=("demo",)),
    Aim(DRAFT, ASSISTED, 1.5, streams=1, pairs=("demo",)),
    Aim(AUTO, CONTINUOUS, 2.0, streams=16),
    Aim(OFF, LLAMA, 1.0),
    Aim(AUTO, OFF, 0.97),
)


class Reached(NamedTuple):
    """How far an aim was reached at `streams` streams."""

    aim: Aim
    streams: int
    ratio: Middle

    @property
    def met(self) -> bool:
        """By the median."""
        return self.ratio.median >= self.aim.least

    def result(self) -> dict[str, Any]:
        """For a machine to read."""
        aim = {"ours": self.aim.ours, "other": self.aim.other, "least": self.aim.least}
        return {**aim, "streams": self.streams, "ratio": self.ratio._asdict(), "met": self.met}


def reached(pair: str, widths: Sequence[Width]) -> Iterator[Reached]:
    """The aims that can be told from what was measured."""
    for aim in AIMS:
        for width in widths:
            known = {aim.ours, aim.other} <= set(width.rounds)
            if known and aim.streams in (None, width.streams) and (not aim.pairs or pair in aim.pairs):
                yield Reached(aim, width.streams, ratio(width.rounds[aim.ours], width.rounds[aim.other]))


def width_result(width: Width) -> dict[str, Any]:
    """The figures of a width for a machine to read, each with how many times as fast our engine is."""
    ours = width.rounds.get(OFF)
    reference = next(iter(width.rounds.values()))
    contestants = {
        name: {
            "serves": width.serves[name],
            **one.result(),
            "differences": [found._asdict() for found in differences(width.rounds[name], reference)],
            "answers": sum(len(played.answers) for played in width.rounds[name]),
            "ours_over_it": ratio(ours, width.rounds[name])._asdict() if ours else None,
        }
        for name, one in width.figures.items()
    }
    return {"streams": width.streams, "contestants": contestants}


def speed_table(title: str, width: Width) -> Table:
    """How fast all were at a width."""
    columns = ("", "tokens/s", "least–most", "tokens/step", "right", "same")
    drawn = _drawn(f"{title}, {streams(width.streams)}", columns)
    for name, one in width.figures.items():
        rate, served = one.tokens_per_s, SERVED[width.serves[name]]
        drawn.add_row(
            f"{name} ({served})" if served and width.streams > 1 else name,
            f"{rate.median:.0f}",
            f"{rate.least:.0f}–{rate.most:.0f}",
            "" if one.tokens_per_step is None else f"{one.tokens_per_step:.2f}",
            "" if one.acceptance is None else f"{one.acceptance:.0%}",
            f"{one.equal}/{one.first.n}",
        )
    return drawn


def times_table(title: str, width: Width) -> Table:
    """When tokens came at a width."""
    columns = ("", "first p50", "p99", "between p50", "p99", "gap p50", "p99")
    drawn = _drawn(f"{title}, {streams(width.streams)}, in ms", columns)
    for name, one in width.figures.items():
        drawn.add_row(name, *(cell for times in (one.first, one.between, one.gaps) for cell in _cells(times)))
    return drawn


def _cells(times: Spread | None) -> tuple[str, str]:
    return ("", "") if times is None else (f"{times.p50:.1f}", f"{times.p99:.1f}")


def _drawn(title: str, columns: Sequence[str]) -> Table:
    drawn = Table(*columns, title=title, title_justify="left")
    for column in drawn.columns[1:]:
        column.justify = "right"
    return drawn


def aims_table(title: str, all_reached: Sequence[Reached]) -> Table:
    """What was aimed at, and what was reached."""
    drawn = Table("aim: tokens/s of", "over those of", "streams", "at least", "median", "least–most", "", title=title)
    for one in all_reached:
        aim, found = one.aim, one.ratio
        span = f"{found.least:.2f}–{found.most:.2f}"
        verdict = "met" if one.met else "missed"
        drawn.add_row(aim.ours, aim.other, str(one.streams), f"{aim.least:g}", f"{found.median:.2f}", span, verdict)
    return drawn


def streams(count: int) -> str:
    """In words."""
    return f"{count} stream{'s' if count > 1 else ''}"
