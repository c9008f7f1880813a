"""The report as one page: what held, how long answers stood still, and the timeline. Needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any

from apps.bench.report import Spread
from apps.chaos.plan import TEXTS, Plan
from apps.chaos.record import Answer, Call, Record, Struck, Turn
from apps.chaos.words import Broken

SCALE, LEAST, MOST = 9.0, 1000.0, 16.0
"""Pixels of a second; more of them, up to `MOST`, where a short run would not be `LEAST` pixels wide."""
LEFT, TOP, ROW, BAR = 74, 62, 22, 14
LEVELS = 3
"""Lines for the faults' names, by turns, so that neighbours do not meet."""
SHOWN_GAP_S = 0.25
PACES = 4
"""A rest of so many of the usual ones is drawn as a gap."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2321; --soft: #5d6763; --line: #dfe3df;
  --turn: #4d83a8; --wait: #c3d6e2; --gap: #d9822b; --bad: #b3261e; --good: #1f7a4d; --fault: #7a5ea8; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181a; --card: #1c2124; --ink: #e7ebe8; --soft: #9aa5a0;
  --line: #323a3d; --turn: #6fa8cf; --wait: #2f4452; --gap: #f0a04b; --bad: #f2857d; --good: #6fcf9f;
  --fault: #b39ddb; } }
* { box-sizing: border-box } body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 64px } h1 { font-size: 26px; margin: 0 0 4px }
h2 { font-size: 17px; margin: 36px 0 10px } p { margin: 4px 0; color: var(--soft) }
.verdict { display: inline-block; margin: 14px 0 4px; padding: 5px 14px; border-radius: 999px; color: var(--card);
  font-weight: 600; background: var(--good) } .verdict.bad { background: var(--bad) }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin-top: 16px }
.fact { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px }
.fact b { display: block; font-size: 19px; font-weight: 600 } .fact span { color: var(--soft); font-size: 13px }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 7px 14px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 500; font-size: 13px } tr:last-child td { border-bottom: 0 }
th:first-child, td:first-child, th.text { text-align: left } td.text { white-space: normal; text-align: left }
.key { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 0 0 10px; color: var(--soft); font-size: 13px }
.key i { display: inline-block; width: 16px; height: 11px; border-radius: 3px; margin-right: 6px }
svg { display: block } svg text { font: 11px system-ui, "Liberation Sans", sans-serif; fill: var(--soft) }
svg .grid { stroke: var(--line) } svg .band { fill: var(--fault); opacity: .13 } svg .strike { stroke: var(--fault);
  stroke-width: 1.5 } svg .name { fill: var(--fault); font-weight: 600 } svg .turn { fill: var(--turn) }
svg .wait { fill: var(--wait) } svg .gap { fill: var(--gap) } svg .bad { fill: var(--bad) }
"""

KEY = (
    ("--turn", "text or sound is streaming"),
    ("--wait", "asked, no text yet; heard of a caller"),
    ("--gap", "the answer stands still"),
    ("--bad", "a guarantee broke"),
    ("--fault", "a fault, until all serve again"),
)


def page(
    *,
    title: str,
    subtitle: Iterable[str],
    facts: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Spread]],
    broken: Iterable[Broken],
    record: Record,
    plan: Plan,
) -> str:
    """The page."""
    found = list(broken)
    verdict = f"{len(found)} times a guarantee broke" if found else "All guarantees were kept"
    labels = {one.who for one in found}
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in subtitle),
        f'<div class="verdict{" bad" if found else ""}">{verdict}</div>',
        f'<div class="facts">{"".join(_fact(name, value) for name, value in facts.items())}</div>',
        *_broken(found),
        *(part for name, rows in tables.items() if rows for part in (f"<h2>{escape(name)}</h2>", _table(rows))),
        "<h2>Timeline</h2>",
        _key(),
        f'<div class="scroll">{timeline(record, plan, labels)}</div>',
        "<h2>Faults</h2>",
        _faults(record.faults),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body><main>\n' + "\n".join(
        [*parts, "</main></body></html>\n"]
    )


def _fact(name: str, value: object) -> str:
    return f'<div class="fact"><b>{escape(str(value))}</b><span>{escape(name)}</span></div>'


def _table(rows: Mapping[str, Spread]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("", "n", "p50", "p95", "p99", "max"))
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{row.n}</td>"
        + "".join(f"<td>{value:.2f} s</td>" for value in row[1:])
        + "</tr>"
        for name, row in rows.items()
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _broken(found: list[Broken]) -> Iterator[str]:
    if not found:
        return
    yield "<h2>What broke</h2>"
    rows = "".join(
        f'<tr><td class="text">{escape(one.guarantee)}</td><td class="text">{escape(one.who)}</td>'
        f'<td class="text">{escape(one.how)}</td><td class="text">{escape(", ".join(one.faults))}</td></tr>'
        for one in found
    )
    yield f'<div class="scroll"><table>{rows}</table></div>'


def _key() -> str:
    return (
        '<div class="key">'
        + "".join(f'<span><i style="background:var({colour})"></i>{escape(text)}</span>' for colour, text in KEY)
        + "</div>"
    )


def _faults(faults: Iterable[Struck]) -> str:
    head = (
        "<th>fault</th><th>at</th><th>all serve again after</th><th class='text'>struck</th><th class='text'>how</th>"
    )
    rows = "".join(
        f"<tr><td>{one.fault.number} {escape(one.fault.name)}</td><td>{one.at:.1f} s</td><td>{_took(one)}</td>"
        f'<td class="text">{escape(one.victim)}</td><td class="text">{escape(_told(one))}</td></tr>'
        for one in faults
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _told(struck: Struck) -> str:
    return "; ".join(part for part in (TEXTS[struck.fault.kind], struck.note) if part)


def _took(struck: Struck) -> str:
    return "" if struck.until is None else f"{struck.until - struck.at:.1f} s"


# ---- the timeline ------------------------------------------------------------------------------------------------


def timeline(record: Record, plan: Plan, broken: Iterable[str]) -> str:
    """The run as a drawing: a row for each client, with the faults across all."""
    return Timeline(record, plan, frozenset(broken)).drawn()


class Timeline:
    """Draws `record`; the turns with these labels broke a guarantee."""

    def __init__(self, record: Record, plan: Plan, broken: frozenset[str]) -> None:
        self._record, self._plan, self._broken = record, plan, broken
        self._scale = max(SCALE, min(MOST, LEAST / max(1.0, record.seconds)))
        self._bottom = TOP + (plan.clients + plan.voices) * ROW + 6

    def drawn(self) -> str:
        """The drawing."""
        record, seconds = self._record, self._record.seconds
        marks = [
            *(self._grid(second) for second in range(0, int(seconds) + 1, 10)),
            *(self._band(one) for one in record.faults),
            *(f'<text x="8" y="{_y(n) + 11}">client {n}</text>' for n in range(self._plan.clients)),
            *(f'<text x="8" y="{self._of(n) + 11}">caller {n}</text>' for n in range(self._plan.voices)),
            *(mark for turn in record.turns for mark in self._turn(turn)),
            *(mark for call in record.calls for mark in self._call(call)),
            *(self._strike(one) for one in record.faults),
        ]
        size = f'width="{self._x(seconds) + 80:.0f}" height="{self._bottom + 20}"'
        return f'<svg {size} role="img" aria-label="timeline">{"".join(marks)}</svg>'

    def _x(self, seconds: float) -> float:
        return LEFT + seconds * self._scale

    def _grid(self, second: int) -> str:
        x = self._x(second)
        line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{self._bottom}"/>'
        return f'{line}<text x="{x + 3:.1f}" y="{self._bottom + 13}">{second // 60}:{second % 60:02}</text>'

    def _band(self, struck: Struck) -> str:
        end = self._record.seconds if struck.until is None else struck.until
        said = f"{struck.label}: {_took(struck)}"
        return self._bar("band", struck.at, end, TOP - 6, self._bottom - TOP + 6, said)

    def _strike(self, struck: Struck) -> str:
        x, level = self._x(struck.at), 14 + 15 * (struck.fault.number % LEVELS)
        name = (
            f'<text class="name" x="{x + 3:.1f}" y="{level}">{struck.fault.number} {escape(struck.fault.name)}</text>'
        )
        return f'<line class="strike" x1="{x:.1f}" x2="{x:.1f}" y1="{level - 9}" y2="{self._bottom}"/>{name}'

    def _turn(self, turn: Turn) -> Iterator[str]:
        y = _y(turn.client)
        times = [piece.at for piece in turn.pieces]
        first = times[0] if times else turn.ended or turn.asked
        last = turn.ended or (times[-1] if times else turn.asked)
        yield self._bar("wait", turn.asked, first, y + 3, BAR - 6, "")
        said = f"{turn.label}: {len(times)} pieces in {last - turn.asked:.1f} s, {', '.join(turn.ends) or 'no end'}"
        yield self._bar("bad" if turn.label in self._broken else "turn", first, last, y, BAR, said)
        for at, later in pairwise(times):
            if later - at > max(SHOWN_GAP_S, PACES * self._plan.pace):
                yield self._bar("gap", at, later, y + 2, BAR - 4, f"{later - at:.2f} s without text")

    def _of(self, caller: int) -> int:
        """The place of a caller, below all clients."""
        return _y(self._plan.clients + caller)

    def _call(self, call: Call) -> Iterator[str]:
        """What the caller said, as it was heard, and what was answered."""
        y = self._of(call.caller)
        if call.label in self._broken:
            yield self._bar("bad", call.began, call.ended or self._record.seconds, y + BAR, 2, call.label)
        for turn in call.turns.values():
            length = (turn.stops[0] - turn.starts[0]) / 1000 if turn.starts and turn.stops else 0.0
            yield self._bar("wait", turn.at, turn.at + length, y + 3, BAR - 6, f"heard: {turn.text}")
        for answer in call.answers.values():
            yield from self._answer(answer, y)

    def _answer(self, answer: Answer, y: float) -> Iterator[str]:
        if not answer.pieces:
            return
        said = f"{answer.said}: {', '.join(answer.ends) or 'no end'}"
        yield self._bar("turn", answer.pieces[0].at, answer.pieces[-1].at, y, BAR, said)
        for over, seconds in answer.silences():
            if seconds > SHOWN_GAP_S:
                yield self._bar("gap", over - seconds, over, y + 2, BAR - 4, f"{seconds:.2f} s of silence")

    def _bar(self, kind: str, begin: float, end: float, y: float, height: float, said: str) -> str:
        place = f'x="{self._x(begin):.1f}" y="{y}" width="{max(1.0, (end - begin) * self._scale):.1f}"'
        title = f"<title>{escape(said)}</title>" if said else ""
        return f'<rect class="{kind}" {place} height="{height}" rx="2">{title}</rect>'


def _y(client: int) -> int:
    return TOP + client * ROW
