"""How many sessions at once a machine bears: more and more of them until both budgets are broken by far.

The aims are medians of one session. A curve of p95 needs budgets of its own: what the slowest of twenty may take. Its
first point is one session, which was measured before. A refusal breaks a budget, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from apps.bench.report import Spread, measuring, spread
from apps.bench.voice_clips import Clip
from apps.bench.voice_exchange import all_talked
from apps.bench.voice_ours import SILENCE_MS, all_heard
from pipeline.errors import PenstockError

FINAL, AUDIO = "final", "audio"
BUDGETS = {FINAL: 300.0, AUDIO: 1000.0}
"""Milliseconds at p95: of the final after the configured silence, what live transcription may take; of the first audio
after the end of the speech, that silence included, a second: a pause that speakers do not take for a fault."""
FAR = 2.0
"""So many times its budget is far beyond it: then no more sessions are tried."""
WIDTHS = (1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Width(NamedTuple):
    """So many sessions at once: milliseconds after the configured silence to `final`, after the speech to `audio`.

    None was not measured: fewer sessions were too many already, or the gateway refused or did not answer (`refused`).
    """

    sessions: int
    final: Spread | None
    audio: Spread | None
    refused: Mapping[str, str] = MappingProxyType({})


class Budget(NamedTuple):
    """At most `ms` at p95: kept up to `held` sessions (0: never), broken first at `broke` (None: it was not seen to).

    `p95` is what was found there; None: the gateway refused, `why` says how.
    """

    ms: float
    held: int
    broke: int | None
    p95: float | None
    why: str = ""


class Load(NamedTuple):
    """How the curve is made: `each` clips or more of a session, `fewest` clips or more at a width.

    A p95 of twenty values is the largest but one. No width is begun when the `minutes` are over.
    """

    each: int = 2
    fewest: int = 20
    minutes: float = 8.0

    def clips(self, sessions: int) -> int:
        """How many clips so many sessions say, all together."""
        return sessions * max(self.each, math.ceil(self.fewest / sessions))


async def curve(url: str, clips: Sequence[Clip], load: Load, widths: Iterable[int], first: Width | None) -> list[Width]:
    """More and more sessions, until all budgets are broken by far; `first` is what one session needs, if known."""
    deadline = time.monotonic() + 60 * load.minutes
    made: list[Width] = []
    for sessions in widths:
        going = [name for name in BUDGETS if not made or _bearable(getattr(made[-1], name), BUDGETS[name])]
        if not going or time.monotonic() > deadline:
            break
        known = first if sessions == 1 else None
        made.append(known or await _width(url, many(clips, load.clips(sessions)), sessions, going))
    return made


async def _width(url: str, clips: Sequence[Clip], sessions: int, going: Sequence[str]) -> Width:
    """Measure what goes on with so many sessions."""
    found: dict[str, Spread] = {}
    refused: dict[str, str] = {}
    with measuring(f"{_counted(sessions)} at once", len(going) * len(clips)) as step:
        for name in going:
            try:
                found[name] = spread(await MEASURES[name](url, clips, sessions, step))
            except* (PenstockError, TimeoutError) as errors:
                refused[name] = _first(errors)
    return Width(sessions, found.get(FINAL), found.get(AUDIO), refused)


async def finals(url: str, clips: Sequence[Clip], sessions: int, step: Callable[[], None]) -> list[float]:
    """After how many milliseconds from the end of the configured silence each clip is final."""
    takes = await all_heard(url, [*clips], sessions, step)
    return [1000 * (heard.final - clip.speech_ends) - SILENCE_MS for clip, heard in takes]


async def first_audio(url: str, clips: Sequence[Clip], sessions: int, step: Callable[[], None]) -> list[float]:
    """After how many milliseconds from the end of the speech each clip's reply is heard."""
    return [1000 * one.audio for one in await all_talked(url, clips, sessions, step)]


MEASURES = {FINAL: finals, AUDIO: first_audio}


def _first(errors: BaseException) -> str:
    """What the first error of a group says."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return str(errors) or "no answer in time"


def many(clips: Sequence[Clip], count: int) -> list[Clip]:
    """So many clips, again and again the same where there are too few."""
    return [clips[at % len(clips)] for at in range(count)]


def _bearable(found: Spread | None, budget: float) -> bool:
    """Whether more sessions are worth a look: one shall see how the budget breaks, and not only that it does."""
    return found is not None and found.p95 <= FAR * budget


def _counted(sessions: int) -> str:
    return f"{sessions} session{'s' if sessions != 1 else ''}"


def budgets(widths: Sequence[Width]) -> dict[str, Budget]:
    """Which of them held how far, and where they broke."""
    return {name: _budget(name, ms, widths) for name, ms in BUDGETS.items()} if widths else {}


def _budget(name: str, ms: float, widths: Sequence[Width]) -> Budget:
    found: list[tuple[int, Spread | None]] = [(width.sessions, getattr(width, name)) for width in widths]
    held = max((sessions for sessions, one in found if one and one.p95 <= ms), default=0)
    for width in widths:
        one: Spread | None = getattr(width, name)
        if width.sessions > held and (one or name in width.refused):
            return Budget(ms, held, width.sessions, one.p95 if one else None, width.refused.get(name, ""))
    return Budget(ms, held, None, None)


def verdict(what: str, one: Budget) -> str:
    """A budget's fate in a line."""
    kept = f"up to {_counted(one.held)}" if one.held else "with no number of sessions that was tried"
    line = f"{what} within {one.ms:g} ms at p95: kept {kept}"
    if one.broke is None:
        return f"{line}; it was not seen to break, more were not tried"
    found = f"{one.p95:.0f} ms" if one.p95 is not None else f"refused: {one.why}"
    return f"{line}, broken at {one.broke} ({found})"
