"""What the voice bench came to: tables for people, figures for the README, and the aims beside them. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from apps.bench.report import Spread, spread
from apps.bench.voice_clips import Clip
from apps.bench.voice_curve import AUDIO, BUDGETS, FINAL, Width
from apps.bench.voice_exchange import Step
from apps.bench.voice_plot import Line
from apps.bench.voice_score import Heard, Rate, error_rate, first_shown, lags, taken_back, words_of

FINAL_MS, AUDIO_MS, BARGE_IN_MS, POINTS = 300.0, 600.0, 100.0, 2.0
"""The aims: see `aims`. They are medians of one session at a time; the curve has budgets of its own."""
OURS = "penstock"

Take = tuple[Clip, Heard]


class Listening(NamedTuple):
    """What was heard of all clips in one way: errors, and times in milliseconds.

    `first` counts from the beginning of the speech, `lag` from a word's end to its standing there for good, `final`
    from the end of the speech. `back` is the share of words shown that did not stay.
    """

    rate: Rate
    first: Spread
    lag: Spread | None
    final: Spread
    back: float


def listened(takes: Sequence[Take]) -> Listening:
    """What `takes` came to, of which there is at least one."""
    first = [first_shown(heard) for _, heard in takes]
    behind = [lag for clip, heard in takes if clip.ends for lag in lags(clip.text, clip.ends, heard)]
    shown = sum(len(words_of(heard.text)) + taken_back(heard) for _, heard in takes)
    return Listening(
        error_rate([clip.text for clip, _ in takes], [heard.text for _, heard in takes]),
        _ms(heard.final if at is None else at for at, (_, heard) in zip(first, takes, strict=True)),
        _ms(behind) if behind else None,
        _ms(heard.final - clip.speech_ends for clip, heard in takes),
        sum(taken_back(heard) for _, heard in takes) / max(1, shown),
    )


def _ms(seconds: Any) -> Spread:
    return spread(1000 * value for value in seconds)


class Exchanges(NamedTuple):
    """Exchanges, in milliseconds from the end of the speech, and from the onset of what interrupts."""

    final: Spread
    token: Spread
    audio: Spread
    silenced: Spread | None
    cancelled: Spread | None


def exchanged(steps: Sequence[Step]) -> Exchanges:
    """What `steps` came to, of which there is at least one."""
    silenced = [step.silenced for step in steps if step.silenced is not None]
    cancelled = [step.cancelled for step in steps if step.cancelled is not None]
    return Exchanges(
        _ms(step.final for step in steps),
        _ms(step.token for step in steps),
        _ms(step.audio for step in steps),
        _ms(silenced) if silenced else None,
        _ms(cancelled) if cancelled else None,
    )


class Aim(NamedTuple):
    """Something that shall be at most `most`."""

    what: str
    most: float
    found: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.found <= self.most


def aims(ways: Mapping[str, Listening], whole: Rate, exchanges: Exchanges | None, silence_ms: int) -> list[Aim]:
    """What was aimed at, and what was reached."""
    made: list[Aim] = []
    if ours := ways.get(OURS):
        made.append(Aim("final after the configured silence, p50 ms", FINAL_MS, ours.final.p50 - silence_ms))
        made.append(Aim("WER above that of the whole file, points", POINTS, 100 * (ours.rate.wer - whole.wer)))
    if exchanges:
        made.append(Aim("first audio after the end of speech, p50 ms", AUDIO_MS, exchanges.audio.p50))
    if exchanges and exchanges.silenced:
        made.append(Aim("speech start to silence, p50 ms", BARGE_IN_MS, exchanges.silenced.p50))
    return made


def lines(widths: Sequence[Width]) -> list[Line]:
    """The curve."""
    finals = [(width.sessions, width.final.p95) for width in widths if width.final]
    audio = [(width.sessions, width.audio.p95) for width in widths if width.audio]
    made = [
        Line("final after the silence", finals, BUDGETS[FINAL]),
        Line("first audio after speech", audio, BUDGETS[AUDIO]),
    ]
    return [line for line in made if line.points]


def accuracy_table(ways: Mapping[str, Listening], whole: Rate, title: str) -> Table:
    """How well each hears, and of how much."""
    drawn = _drawn(title, ("", "WER", "words", "clips", "retracted"))
    drawn.add_row("whole file", f"{whole.wer:.1%}", f"{whole.words}", "", "")
    for name, one in ways.items():
        drawn.add_row(name, f"{one.rate.wer:.1%}", f"{one.rate.words}", f"{one.final.n}", f"{one.back:.1%}")
    return drawn


def latency_table(ways: Mapping[str, Listening]) -> Table:
    """How soon each hears: first partial, partial lag, finalisation."""
    steps = [column for step in ("first", "lag", "final") for column in (f"{step}\np50", "p95")]
    drawn = _drawn("first partial, partial lag, finalisation (ms)", ("", *steps))
    for name, one in ways.items():
        drawn.add_row(name, *(cell for part in (one.first, one.lag, one.final) for cell in _cells(part)[1:]))
    return drawn


def curve_table(widths: Sequence[Width]) -> Table:
    """The curve for people."""
    drawn = _drawn("sessions at once (ms)", ("", "n", "final p50", "p95", "n", "first audio p50", "p95"))
    for width in widths:
        cells = [
            cell
            for name, one in ((FINAL, width.final), (AUDIO, width.audio))
            for cell in (("", "refused", "") if name in width.refused else _cells(one))
        ]
        drawn.add_row(str(width.sessions), *cells)
    return drawn


def _cells(one: Spread | None) -> tuple[str, str, str]:
    return ("", "", "") if one is None else (str(one.n), f"{one.p50:.0f}", f"{one.p95:.0f}")


def aims_table(all_aims: Sequence[Aim]) -> Table:
    """The aims for people."""
    drawn = _drawn("aims", ("", "at most", "found", ""))
    for aim in all_aims:
        drawn.add_row(aim.what, f"{aim.most:g}", f"{aim.found:.1f}", "met" if aim.met else "missed")
    return drawn


def _drawn(title: str, columns: Sequence[str]) -> Table:
    drawn = Table(*columns, title=title, title_justify="left")
    drawn.columns[0].no_wrap = True
    for column in drawn.columns[1:]:
        column.justify = "right"
    return drawn


def as_data(one: Any) -> Any:
    """Named tuples as dictionaries, all the way down."""
    if isinstance(one, tuple) and hasattr(one, "_asdict"):
        return {name: as_data(value) for name, value in one._asdict().items()}
    if isinstance(one, Mapping):
        return {name: as_data(value) for name, value in one.items()}
    if isinstance(one, list | tuple):
        return [as_data(value) for value in one]
    return one
