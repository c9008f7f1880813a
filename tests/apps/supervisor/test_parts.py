"""The parts of a supervisor that need no process: waits, verdicts, lines, words, tables, metrics."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from prometheus_client.core import GaugeMetricFamily
from rich.console import Console

from apps.settings import Settings
from apps.supervisor.backoff import Backoff
from apps.supervisor.metrics import counted, merged
from apps.supervisor.output import named
from apps.supervisor.pipes import Lines
from apps.supervisor.report import parts_text, problem, table
from apps.supervisor.settings import SupervisorSettings
from apps.supervisor.supervise import command, plan_of
from apps.supervisor.watchdog import Patience, Watchdog
from apps.supervisor.words import (
    Beat,
    Failed,
    Measure,
    Metrics,
    Order,
    Report,
    Row,
    Take,
    Word,
    line,
    order_of,
    word_of,
)
from pipeline.errors import UndecodableMessage
from pipeline.kafka import KafkaSettings

PATIENCE = Patience(silent_s=5.0, load_s=600.0, step_s=60.0, stalled_s=30.0)
SERVING = Beat("serving", parts=("prompts-0",), lag=0)


def test_the_first_failures_cost_no_wait_and_later_ones_twice_the_last() -> None:
    """At once, at once, then 1, 2, 4 … seconds up to the cap."""
    backoff = Backoff(1.0, 30.0, 10.0, chance=lambda: 1.0)
    assert [backoff.failed(0.1) for _ in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.looping


def test_a_long_life_forgives_what_was_before() -> None:
    """Who served for long is started again at once."""
    backoff = Backoff(1.0, 30.0, 10.0, chance=lambda: 1.0)
    for _ in range(6):
        backoff.failed(0.1)
    assert backoff.failed(10.0) == 0
    assert not backoff.looping


def test_waits_differ_by_chance_within_half() -> None:
    """Many that died of one thing do not come back at one moment; even after ages the wait is the cap."""
    least, most = Backoff(1.0, 30.0, 10.0, chance=lambda: 0.0), Backoff(1.0, 30.0, 10.0, chance=lambda: 1.0)
    for _ in range(2000):
        assert least.failed(0.1) == most.failed(0.1) / 2
    assert most.failed(0.1) == 30.0


def test_a_worker_that_beats_is_well() -> None:
    """Nothing is held against one that says every second that it is idle."""
    dog = Watchdog(PATIENCE, 0.0)
    for second in range(1000):
        dog.hear(SERVING, float(second))
        assert dog.verdict(second + 0.5) == ""


def test_silence_is_judged_by_what_the_worker_does() -> None:
    """Seconds are enough where it serves, minutes where it loads."""
    dog = Watchdog(PATIENCE, 0.0)
    assert dog.verdict(599.0) == ""
    assert "while it loaded" in dog.verdict(601.0)
    dog.hear(Beat("warm"), 601.0)
    assert dog.verdict(605.0) == ""
    assert dog.verdict(606.5) == "no heartbeat for 5.5 s"


def test_a_model_may_take_its_time_but_not_for_ever() -> None:
    """A step in progress is counted by the worker."""
    dog = Watchdog(PATIENCE, 0.0)
    dog.hear(Beat("serving", step_s=59.0, in_hand=1), 1.0)
    assert dog.verdict(1.1) == ""
    dog.hear(Beat("serving", step_s=61.0, in_hand=1), 2.0)
    assert dog.verdict(2.1) == "its model has been in one step for 61.0 s"


@pytest.mark.parametrize(
    "beat",
    [
        Beat("serving", lag=0),
        Beat("serving", lag=None),
        Beat("serving", lag=7, in_hand=1),
        Beat("serving", lag=7, note="Kafka is lost"),
        Beat("joining", lag=7),
        Beat("draining", lag=7),
    ],
    ids=["no lag", "lag unknown", "work in hand", "Kafka lost", "joining", "draining"],
)
def test_standing_still_can_have_its_reasons(beat: Beat) -> None:
    """A position need not move where nothing waits, or where something in hand or outside explains it."""
    dog = Watchdog(PATIENCE, 0.0)
    for second in range(100):
        dog.hear(beat, float(second))
        assert dog.verdict(second + 0.5) == ""


def test_standing_still_although_records_wait_is_being_wedged() -> None:
    """Nothing taken for the whole patience, with lag and nothing in hand; whoever takes something begins anew."""
    dog = Watchdog(PATIENCE, 0.0)
    dog.hear(SERVING, 0.0)
    for second in range(30):
        dog.hear(Beat("serving", lag=7, taken=5), float(second))
        assert dog.verdict(second + 0.5) == ""
    for second in range(30, 60):
        dog.hear(Beat("serving", lag=7, taken=6), float(second))
        assert dog.verdict(second + 0.5) == ""
    dog.hear(Beat("serving", lag=7, taken=6), 61.0)
    assert "although 7 records wait and nothing is in hand" in dog.verdict(61.5)


def test_a_stream_that_waits_for_more_is_no_reason_to_stand_still() -> None:
    """An open stream may be in hand for hours; where others wait to be taken, it explains nothing."""
    wedged, busy = Watchdog(PATIENCE, 0.0), Watchdog(PATIENCE, 0.0)
    for second in range(40):
        wedged.hear(Beat("serving", lag=7, in_hand=2, listening=2), float(second))
        busy.hear(Beat("serving", lag=7, in_hand=2, listening=1), float(second))
    assert "7 records wait" in wedged.verdict(39.5)
    assert busy.verdict(39.5) == ""


def test_time_in_which_nobody_watched_does_not_count() -> None:
    """A supervisor that was asleep itself kills nobody for it."""
    dog = Watchdog(PATIENCE, 0.0)
    dog.hear(SERVING, 1.0)
    dog.forgive(100.0)
    assert dog.verdict(104.0) == ""
    assert dog.verdict(106.0) != ""


def test_lines_come_whole_however_they_are_cut() -> None:
    """Bytes in any pieces give the same lines; one without an end, however long, is bounded."""
    text = b"one\ntwo\n\nthree"
    for size in range(1, len(text) + 1):
        cut = Lines()
        found = [one for at in range(0, len(text), size) for one in cut.feed(text[at : at + size])]
        assert found + cut.rest() == [b"one", b"two", b"", b"three"]
    cut = Lines(longest=10)
    assert cut.feed(b"x" * 25) == [b"x" * 10, b"x" * 10]
    assert cut.rest() == [b"x" * 5]


@pytest.mark.parametrize("order", [Take("llm-0"), Measure()], ids=lambda order: type(order).__name__)
def test_every_order_comes_back(order: Order) -> None:
    """What a worker is told survives the pipe."""
    assert order_of(line(order)) == order


@pytest.mark.parametrize(
    "word",
    [
        Beat("serving", "a note", ("prompts-0", "prompts-1"), 3, 5, 7, 0.5),
        Beat("loading"),
        Failed("why", lasting=True),
        Metrics("# a\nb 1\n"),
    ],
    ids=["beat", "least beat", "failed", "metrics"],
)
def test_every_word_comes_back(word: Word) -> None:
    """What a worker says survives the pipe, in one line."""
    assert line(word).count(b"\n") == 1
    assert word_of(line(word)) == word


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"{}", b'{"type":"beat"}', b'{"type":"beat","phase":"x"}', b"[]"])
def test_anything_else_is_refused(text: bytes) -> None:
    """Neither side trusts what comes through a pipe."""
    with pytest.raises(UndecodableMessage):
        word_of(text)
    with pytest.raises(UndecodableMessage):
        order_of(text)


def test_a_line_of_text_has_its_worker_before_it() -> None:
    """Who reads the log of many sees whose line it is."""
    assert named(b"12:00:00 INFO apps.worker: ready", "llm-0[7]", "text") == (
        b"llm-0[7] | 12:00:00 INFO apps.worker: ready\n"
    )


def test_a_line_of_json_has_its_worker_in_it() -> None:
    """What a machine reads stays one JSON object a line, also where a library printed something else."""
    ours = json.loads(named(b'{"level": "info", "message": "ready"}', "llm-0[7]", "json"))
    assert ours == {"level": "info", "message": "ready", "worker": "llm-0[7]"}
    other = json.loads(named(b"Segmentation fault \xff", "llm-0[7]", "json"))
    assert other["message"] == "Segmentation fault \ufffd"
    assert other["worker"] == "llm-0[7]"
    assert json.loads(named(b"[1, 2]", "w", "json"))["message"] == "[1, 2]"


REPORT = Report(
    "test-llm", "llm", 7, 1000.0, 2, 1,
    [
        Row("llm-0", "test-llm-0", "active", 11, parts=("prompts-0", "prompts-1", "prompts-3"), lag=4, in_hand=2,
            restarts=3, reason="no heartbeat for 5.2 s", since=1000.0),
        Row("llm-1", "test-llm-1", "backing off", note="the next attempt in 4 s", restarts=9, reason="it ended"),
        Row("llm", "", "standby", 13, since=1060.0),
    ],
)  # fmt: skip


def test_the_table_shows_every_worker() -> None:
    """Ids, processes, roles, partitions, lag, work, restarts, why, and for how long."""
    console = Console(width=200, record=True, file=None)
    with console.capture() as shown:
        console.print(table(REPORT, 4725.0))
    text = shown.get()
    for part in ("supervisor 7, 1h02m, 2 + 1", "test-llm-0", "prompts 0-1,3", "no heartbeat for 5.2 s", "backing off"):
        assert part in text
    first = next(row for row in text.splitlines() if "test-llm-0" in row).split()
    assert first[2:4] == ["11", "active"]
    assert [row.split()[0] for row in text.splitlines()[2:5]] == ["llm-0", "llm-1", "llm"]


def test_partitions_are_told_in_short() -> None:
    """Runs of numbers as runs, each topic by its name."""
    assert parts_text([]) == ""
    assert parts_text(["turns-2"]) == "turns 2"
    assert parts_text([f"a-b-{n}" for n in (9, 0, 1, 2, 5, 10)] + ["c-1"]) == "a-b 0-2,5,9-10 c 1"


def test_who_is_not_served_is_the_problem() -> None:
    """Ready means that every id is served; a standby that loads is nobody's trouble."""
    assert problem(REPORT) == "llm-1: the next attempt in 4 s"
    active = Report("n", "llm", 7, 0.0, 1, 1, [REPORT.workers[0], Row("llm", "", "starting", 13)])
    assert problem(active) == ""


def test_the_metrics_of_all_stand_on_one_page() -> None:
    """Each worker's with its name, each family once, and the supervisor's own."""
    text = '# HELP x_total X\n# TYPE x_total counter\nx_total{stage="llm"} 3.0\n'
    page = merged(
        [*counted(REPORT), GaugeMetricFamily("own", "Own", value=1)], {"a": text, "b": text, "c": ""}
    ).decode()
    assert page.count("# TYPE x_total counter") == 1
    assert 'x_total{stage="llm",worker="a"} 3.0' in page
    assert 'x_total{stage="llm",worker="b"} 3.0' in page
    assert 'penstock_supervisor_restarts_total{worker="test-llm-0"} 3.0' in page
    assert 'penstock_supervisor_workers{role="backing off",stage="llm"} 1.0' in page
    assert "own 1.0" in page


def test_ids_are_the_same_at_each_start_and_fit_kafka() -> None:
    """They are made of the prefix, the stage and a name, in letters that Kafka takes."""
    settings = Settings(
        kafka=KafkaSettings(topic_prefix="a/b-"), supervisor=SupervisorSettings(standby=2, name="höst one")
    )
    plan = plan_of(("text", "llm"), ["x"], settings)
    assert plan.base == "a.b-text.llm-h.st.one"
    assert (plan.replicas, plan.standby) == (1, 2)
    assert plan.drain_s == settings.stage.drain_s
    assert plan_of(("text",), [], Settings()).base == plan_of(("text",), [], Settings()).base


def test_a_worker_is_started_by_the_same_command() -> None:
    """Its settings are its supervisor's; its own part comes last, and so counts."""
    started = command(["stage", "--", "llm"], "json")
    assert started[1:5] == ["-m", "apps.cli", "stage", "llm"]
    assert started[-1] == "--supervised"
    assert all(before == "--set" for before, after in pairwise(started) if "=" in after)
    assert {"health.port=0", "log.format=json"} < set(started)
