"""The curve of `penstock bench voice` as an SVG file: p95 over concurrent sessions, the budgets as dashed lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 72, 220, 24, 44
STYLE = "font-family:system-ui,sans-serif;font-size:12px;fill:#444"
COLOURS = ("#0b6e4f", "#4c5fd7", "#d1495b", "#e0a030", "#222b66", "#8a96ea")
ROW = 18


class Line(NamedTuple):
    """p95 in milliseconds by the number of sessions, and the `budget` that it shall stay below, if there is one."""

    name: str
    points: Sequence[tuple[int, float]]
    budget: float | None = None


class Scale(NamedTuple):
    """From sessions and milliseconds to pixels, both logarithmic."""

    fewest: int
    most: int
    low: int
    high: int

    def x(self, sessions: int) -> float:
        """Across."""
        span = math.log(self.most / self.fewest) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(sessions / self.fewest) / span

    def y(self, ms: float) -> float:
        """Down."""
        share = (math.log10(max(ms, 10**self.low)) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def scale_of(lines: Sequence[Line]) -> Scale:
    """What all points and budgets fit into."""
    counts = [sessions for line in lines for sessions, _ in line.points]
    values = [max(ms, 1.0) for line in lines for _, ms in line.points]
    values += [line.budget for line in lines if line.budget]
    low = math.floor(math.log10(min(values)))
    return Scale(min(counts), max(counts), low, max(low + 1, math.ceil(math.log10(max(values)))))


def plot(lines: Sequence[Line], title: str) -> str:
    """The lines in one plot, with their names beside it."""
    scale = scale_of(lines)
    colours = {line.name: COLOURS[at % len(COLOURS)] for at, line in enumerate(lines)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{STYLE}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_axes(scale, lines),
        *(part for line in lines for part in _drawn(line, scale, colours[line.name])),
        *_key(colours),
        f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(scale: Scale, lines: Sequence[Line]) -> Iterator[str]:
    right = WIDTH - RIGHT
    for exponent in range(scale.low, scale.high + 1):
        y = scale.y(10**exponent)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,} ms</text>'
    for sessions in sorted({sessions for line in lines for sessions, _ in line.points}):
        x = scale.x(sessions)
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{sessions}</text>'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">sessions at once (p95 over them)</text>'


def _drawn(line: Line, scale: Scale, colour: str) -> Iterator[str]:
    path = " ".join(f"{scale.x(sessions):.1f},{scale.y(ms):.1f}" for sessions, ms in line.points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for sessions, ms in line.points:
        yield f'<circle cx="{scale.x(sessions):.1f}" cy="{scale.y(ms):.1f}" r="3" fill="{colour}"/>'
    if line.budget:
        y = scale.y(line.budget)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{colour}" stroke-dasharray="4 4"/>'


def _key(colours: Mapping[str, str]) -> Iterator[str]:
    for row, (name, colour) in enumerate(colours.items()):
        x, y = WIDTH - RIGHT + 16, TOP + ROW * row + 8
        yield f'<path d="M{x} {y}h18" stroke="{colour}" stroke-width="2"/>'
        yield f'<text x="{x + 24}" y="{y + 4}">{escape(name)}</text>'
