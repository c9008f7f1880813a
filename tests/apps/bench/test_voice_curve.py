"""The voice bench's curve: it ends by itself, and tells which budget broke where."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from apps.bench import voice_curve
from apps.bench.report import Spread
from apps.bench.voice_clips import Clip
from apps.bench.voice_curve import AUDIO, FINAL, Budget, Load, Width, budgets, curve, verdict
from apps.bench.voice_ours import NotHeard
from apps.bench.voice_plot import Line, plot
from apps.bench.voice_report import as_data, curve_table, lines
from scripts.readme_voice import _curve as readme_curve

CLIPS = [Clip(f"{number}", "yes", b"", (), 0.0) for number in range(3)]
Answers = Callable[[int], float]


def at(p95: float) -> Spread:
    """So slow."""
    return Spread(20, 1.0, p95, p95, p95)


def measured(monkeypatch: pytest.MonkeyPatch, final: Answers, audio: Answers) -> list[tuple[str, int, int]]:
    """What is measured from now on is made up; gives what was asked for: what, sessions and clips."""
    asked: list[tuple[str, int, int]] = []

    def fake(name: str, answers: Answers) -> Any:
        async def measure(url: str, clips: Sequence[Clip], sessions: int, step: Callable[[], None]) -> Iterable[float]:
            asked.append((name, sessions, len(clips)))
            return [answers(sessions)] * len(clips)

        return measure

    monkeypatch.setattr(voice_curve, "MEASURES", {FINAL: fake(FINAL, final), AUDIO: fake(AUDIO, audio)})
    return asked


async def test_the_curve_goes_on_until_both_budgets_are_broken_by_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is far beyond its budget is not measured any more; where nothing is left, no more sessions are tried."""
    asked = measured(monkeypatch, lambda sessions: 50.0 * sessions, lambda sessions: 520.0 * sessions)
    made = await curve("", CLIPS, Load(each=2, fewest=6), (1, 2, 4, 8, 16, 32, 64), None)
    assert [width.sessions for width in made] == [1, 2, 4, 8, 16]
    assert [width.audio is not None for width in made] == [True, True, True, False, False]
    assert asked[:4] == [(FINAL, 1, 6), (AUDIO, 1, 6), (FINAL, 2, 6), (AUDIO, 2, 6)]
    assert asked[-1] == (FINAL, 16, 32)
    assert budgets(made) == {FINAL: Budget(300, 4, 8, 400.0), AUDIO: Budget(1000, 1, 2, 1040.0)}


async def test_one_session_is_not_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of it stands at the beginning."""
    asked = measured(monkeypatch, lambda _: 1e6, lambda _: 1e6)
    first = Width(1, at(70), at(600))
    made = await curve("", CLIPS, Load(), (1, 4, 8), first)
    assert made[0] == first
    assert [(name, sessions) for name, sessions, _ in asked] == [(FINAL, 4), (AUDIO, 4)]


async def test_time_ends_the_curve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that bears hundreds of sessions does not measure for ever, and nobody says that it broke."""
    measured(monkeypatch, lambda _: 1.0, lambda _: 1.0)
    made = await curve("", CLIPS, Load(minutes=-1), (1, 4, 8), None)
    assert made == []
    assert budgets(made) == {}
    made = await curve("", CLIPS, Load(), (1, 4), None)
    assert budgets(made)[FINAL] == Budget(300, 4, None, None)
    assert "not seen to break" in verdict("final", budgets(made)[FINAL])


async def test_a_refusal_breaks_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no end of the measurement: the curve says at which width the gateway gave up, and why."""

    def refusing(sessions: int) -> float:
        if sessions > 2:
            raise ExceptionGroup("", [NotHeard("the gateway refuses: full")])
        return 1.0

    measured(monkeypatch, refusing, lambda _: 1.0)
    made = await curve("", CLIPS, Load(each=1, fewest=1), (1, 2, 4, 8), None)
    assert [width.sessions for width in made] == [1, 2, 4, 8]
    assert (made[2].final, made[2].refused) == (None, {FINAL: "the gateway refuses: full"})
    assert budgets(made)[FINAL] == Budget(300, 2, 4, None, "the gateway refuses: full")
    told = {"curve": as_data(made), "budgets": as_data(budgets(made))}
    assert "broken at 4 (some were refused)" in readme_curve(json.loads(json.dumps(told)), plotted=False)[0]
    assert curve_table(made).row_count == 4


async def test_no_answer_breaks_the_budget_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is too busy to configure a session has had its chance."""

    def silent(_: int) -> float:
        raise ExceptionGroup("", [TimeoutError()])

    measured(monkeypatch, silent, lambda _: 1.0)
    made = await curve("", CLIPS, Load(), (1, 4), None)
    assert budgets(made)[FINAL] == Budget(300, 0, 1, None, "no answer in time")


async def test_a_fault_of_the_bench_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the gateway refuses is."""

    def broken(_: int) -> float:
        raise ZeroDivisionError

    measured(monkeypatch, broken, lambda _: 1.0)
    with pytest.raises(ZeroDivisionError):
        await curve("", CLIPS, Load(each=1, fewest=1), (1,), None)


def test_one_slow_width_below_one_that_holds_is_no_break() -> None:
    """A budget breaks above the most sessions with which it is kept."""
    widths = [Width(1, at(50), None), Width(4, at(310), None), Width(8, at(90), None), Width(16, at(900), None)]
    assert budgets(widths)[FINAL] == Budget(300, 8, 16, 900)
    assert verdict("final", budgets(widths)[FINAL]) == (
        "final within 300 ms at p95: kept up to 8 sessions, broken at 16 (900 ms)"
    )
    assert budgets([Width(1, at(310), None)])[FINAL] == Budget(300, 0, 1, 310)
    assert "with no number" in verdict("final", Budget(300, 0, 1, 310))


def test_the_readme_tells_where_it_broke_and_of_how_many() -> None:
    """Each width with its n, and each budget with its break; without a curve nothing is said."""
    widths = [Width(1, at(50), at(600)), Width(4, at(400), at(700))]
    told = json.loads(json.dumps({"curve": as_data(widths), "budgets": as_data(budgets(widths))}))
    title, table, plotted = readme_curve(told, plotted=True)
    assert "within 300 ms at p95 up to 1 session, broken at 4 (400 ms)" in title
    assert "within 1000 ms at p95 up to 4 sessions, the most that were tried" in title
    assert "| 4 | 20 | 1 | 400 | 20 | 1 | 700 |" in table
    assert "voice.svg" in plotted
    assert readme_curve({"curve": [], "budgets": {}}, plotted=True) == []


def test_the_plot_has_a_line_and_a_budget_for_each() -> None:
    """As long as they were measured."""
    widths = [Width(1, at(50), at(580)), Width(2, at(120), at(700)), Width(4, at(900), None)]
    drawn = ET.fromstring(plot(lines(widths), "Voice & load"))
    paths = drawn.findall("{*}polyline")
    assert [len(path.attrib["points"].split()) for path in paths] == [3, 2]
    assert sum("stroke-dasharray" in path.attrib for path in drawn.findall("{*}path")) == 2
    assert ET.fromstring(plot([Line("one", [(1, 0.0)])], "")) is not None
