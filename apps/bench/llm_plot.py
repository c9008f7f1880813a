"""A plot as an SVG file, in a few lines of our own: tokens a second over streams, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 460, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 44
KEY = 150
"""Pixels to the right of the plots for the names of the lines."""
ROW = 18
COLOURS = (
    "#0b6e4f",
    "#1fa774",
    "#6cc24a",
    "#a3d977",
    "#4c5fd7",
    "#8a96ea",
    "#b9c0f4",
    "#222b66",
    "#d1495b",
    "#e8899a",
    "#f4c0c9",
)
STYLE = "font-family:system-ui,sans-serif;font-size:12px;fill:#444"

Lines = Mapping[str, Sequence[tuple[int, float]]]
"""(streams, tokens a second) by name."""


def plot(plots: Mapping[str, Lines]) -> str:
    """All `plots` beside each other by their titles, with one key; the same name has the same colour in all."""
    names = list(dict.fromkeys(name for lines in plots.values() for name in lines))
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}
    width = WIDTH * len(plots) + KEY
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
            f'style="{STYLE}"><rect width="{width}" height="{HEIGHT}" fill="#fff"/>'
        )
    ]
    for at, (title, lines) in enumerate(plots.items()):
        parts += [f'<g transform="translate({WIDTH * at} 0)">', *_one(title, lines, colours), "</g>"]
    for row, (name, colour) in enumerate(colours.items()):
        y = TOP + ROW * row + 8
        parts.append(
            f'<path d="M{width - KEY} {y}h18" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{width - KEY + 24}" y="{y + 4}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _one(title: str, lines: Lines, colours: Mapping[str, str]) -> list[str]:
    points = [point for line in lines.values() for point in line]
    widths = sorted({streams for streams, _ in points})
    low = math.floor(math.log10(min(rate for _, rate in points)))
    high = max(low + 1, math.ceil(math.log10(max(rate for _, rate in points))))

    def x(streams: int) -> float:
        span = math.log(widths[-1] / widths[0]) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(streams / widths[0]) / span

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(rate) - low) / (high - low)

    parts = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    left, right, under = x(widths[0]), x(widths[-1]), HEIGHT - BOTTOM + 18
    parts += [_grid(left, right, y(10**exponent), f"{10**exponent:,}") for exponent in range(low, high + 1)]
    parts += [f'<text x="{x(s):.1f}" y="{under}" text-anchor="middle">{s}</text>' for s in widths]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">streams (tokens/s over them)</text>')
    for name, line in lines.items():
        path = " ".join(f"{x(streams):.1f},{y(rate):.1f}" for streams, rate in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(s):.1f}" cy="{y(rate):.1f}" r="3" fill="{colours[name]}"/>' for s, rate in line]
    return parts


def _grid(left: float, right: float, y: float, label: str) -> str:
    return (
        f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="#ddd"/>'
        f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def lines_of(pair: Mapping[str, Any]) -> Lines:
    """The lines of a pair's figures, as `penstock bench llm` writes them."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for width in pair["widths"]:
        for name, one in width["contestants"].items():
            lines.setdefault(name, []).append((width["streams"], one["tokens_per_s"]["median"]))
    return lines
