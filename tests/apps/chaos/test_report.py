"""The report: a table, a document and a page that say the same, and the status that follows from it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from apps.chaos.audit import Audit, Sound
from apps.chaos.comparison import mark
from apps.chaos.plan import Plan
from apps.chaos.record import Call, Heard
from apps.chaos.report import folder_for, tell
from apps.chaos.run import Outcome
from apps.chaos.verdict import judged
from pipeline.voice import RATE
from tests.apps.chaos.runs import ANSWER, log_of, record, struck, turn
from tests.apps.chaos.test_answers import answer


def outcome_of(*, broken: bool = False) -> Outcome:
    """A run of one turn and one fault."""
    one = turn(pieces=ANSWER * 2)
    if broken:
        one.ends.append("completed")
    run = record(one, faults=(struck(2.5, parts=frozenset({3})),))
    log = log_of(one)
    verdict = judged(record(turn(pieces=ANSWER * 2)), run, log)
    return Outcome(Plan(clients=1), Path("/logs"), disturbed=run, verdict=verdict, log=log)


@pytest.mark.parametrize("broken", [False, True], ids=["kept", "broken"])
def test_all_forms_say_the_same(tmp_path: Path, broken: bool) -> None:
    """What broke is named in each, and the status tells whether something did."""
    said = io.StringIO()
    document, page = tmp_path / "out" / "report.json", tmp_path / "page.html"
    console = Console(file=said, width=200)
    assert tell(outcome_of(broken=broken), console, json=document, html=page) is not broken

    found = json.loads(document.read_text())
    assert found["kept"] is not broken
    assert found["terminal_events"] == {"2" if broken else "1": 1}
    assert found["faults"] == {"kill llm": 1}
    gaps = found["seconds_by"]["Gap in streaming answers, from text to text"]
    assert gaps["kill llm"]["p50"] == 1.0
    name = "turn 0.0 of client 0 (session sess_1, resp_0.0)"
    for text in (said.getvalue(), page.read_text(), json.dumps(found["broken"])):
        assert (name in text.replace("\n", " ")) or not broken
        assert ("one terminal event" in text) is broken


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    """No address in it, no script, and colours for light and dark."""
    page = tmp_path / "page.html"
    tell(outcome_of(), Console(file=io.StringIO()), json=None, html=page)
    text = page.read_text()
    assert not re.search(r"https?:|src=|url\(|@import|<script|<link", text)
    assert "prefers-color-scheme: dark" in text
    assert text.count('class="turn"') == 1
    assert text.count('class="strike"') == 1
    assert "1.00 s without text" in text


def test_callers_and_spoken_answers_are_told_in_all_forms(tmp_path: Path) -> None:
    """What was heard, what was answered, and how long an answer fell silent for a fault."""
    spoken = answer(bytes(2 * 3 * RATE), pieces=3)
    spoken.pieces[2] = spoken.pieces[2]._replace(at=5.5)
    call = Call(0, 0, 0.0, "sess_1", answers={"resp_0.0": spoken}, reconnects=2, again=12_000, ended=6.0)
    call.turns["item_1"] = Heard("item_1", 0.5, [100], [900], 1, 1, ["a tent"], ["a tent"])
    run = record(faults=(struck(2.5),))
    run.calls.append(call)
    run.late = 2.5
    log = Audit()
    log.said["sess_1", "resp_0.0"].samples = 3 * RATE
    log.sounds["sess_1", "resp_0.0"] = Sound(3 * RATE, "")
    verdict = judged(record(), run, log)
    outcome = Outcome(Plan(clients=1, voices=1), Path("/logs"), disturbed=run, verdict=verdict, log=log)
    said, document, page = io.StringIO(), tmp_path / "report.json", tmp_path / "page.html"
    assert tell(outcome, Console(file=said, width=200), json=document, html=page)

    found = json.loads(document.read_text())
    answers = found["spoken"]["answers"]
    assert (answers["answers"], answers["exact"], answers["seconds"], found["late"]) == (1, 1, 3.0, 2.5)
    assert found["seconds_by"]["Silence in spoken answers"]["kill llm"]["p50"] == 2.5
    for text in (said.getvalue(), page.read_text()):
        assert "1 of 1" in text
        assert "2, 0.5" in text
        assert "late by up to 2.5 s" in text.replace("\n", " ")
    for drawn in ("caller 0", "heard: a tent", "2.50 s of silence"):
        assert drawn in page.read_text()


def test_what_is_said_is_no_markup(tmp_path: Path) -> None:
    """Texts of models and errors stand in the page as they are."""
    outcome = outcome_of(broken=True)
    outcome.verdict.broken[0] = outcome.verdict.broken[0]._replace(how="<script>alert(1)</script>")
    page = tmp_path / "page.html"
    tell(outcome, Console(file=io.StringIO()), json=None, html=page)
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()


def test_logs_go_where_they_are_wanted(tmp_path: Path) -> None:
    """The folder is made; without one there is a new one."""
    assert folder_for(tmp_path / "a" / "b").is_dir()
    made = folder_for(None)
    made.rmdir()


def test_plain_workers_partitions_are_those_claimed_after_the_kill() -> None:
    """Nobody tells what a worker without supervisor had; the log tells who took it."""
    run = record(turn(), faults=(struck(10.0),))
    run.zero = 1000.0
    log = log_of(turn())
    log.claims |= {(0, "5"): 1009.0, (1, "7"): 1017.5, (2, "9"): 1018.0, (3, "11"): 1100.0}
    mark(run, log)
    assert run.faults[0].parts == frozenset({1, 2})
