"""Metrics, trace context and log lines."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.errors import SettingsError
from pipeline.headers import TRACE
from pipeline.telemetry import JsonFormatter, LoopMetrics, Seldom, Tracing, configure_logging, new_traceparent


def test_loops_of_one_program_share_a_registry() -> None:
    """Two stages count under their own labels; a metric is registered once."""
    registry = CollectorRegistry()
    LoopMetrics(registry, "text").records.inc()
    LoopMetrics(registry, "llm").records.inc(2)
    page = generate_latest(registry).decode()
    assert 'penstock_stage_records_total{stage="text"} 1.0' in page
    assert 'penstock_stage_records_total{stage="llm"} 2.0' in page


def test_a_trace_context_is_a_valid_one() -> None:
    """A fresh context has the form that W3C's specification gives."""
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", new_traceparent())


def test_without_an_endpoint_the_trace_context_travels_untouched() -> None:
    """A deployment that collects no traces still passes on those of its clients."""
    headers = {TRACE: new_traceparent(), "turn": "t"}
    with Tracing().span("text", headers) as passed:
        assert passed == headers


def test_an_endpoint_without_its_exporter_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for traces without the extra is told how to install it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"penstock\[otlp\]"):
        Tracing("http://127.0.0.1:4318/v1/traces")


def test_a_json_line_is_one_object() -> None:
    """A log line for machines parses, whatever it says."""
    record = logging.LogRecord("a.b", logging.INFO, __file__, 1, 'say "%s"\n', ("hi",), None)
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["level"], entry["logger"], entry["message"]) == ("info", "a.b", 'say "hi"\n')


def said(name: str, words: str, *args: object) -> logging.LogRecord:
    """A line of a program's log."""
    return logging.LogRecord(name, logging.ERROR, __file__, 1, words, args, None)


def test_what_a_library_repeats_is_told_from_time_to_time() -> None:
    """By its words, with how often it was said; what others say is always told."""
    now = 0.0
    seldom = Seldom("lib", 10.0, lambda: now)
    told = [seldom.filter(said("lib.client", "no node %d", n)) for n in range(3)]
    assert told == [True, False, False]
    assert seldom.filter(said("lib.client", "something else"))
    assert all(seldom.filter(said("library", "no node %d", 1)) for _ in range(2))

    now = 10.0
    again = said("lib.client", "no node %d", 7)
    assert seldom.filter(again)
    assert again.getMessage() == "no node 7 (and 2 times before)"
    assert seldom.filter(said("lib.client", "no node %d", 8)) is False


def test_a_lost_kafka_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Unless everything is wanted."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        for chosen, lines in (("info", 1), ("debug", 5)):
            configure_logging(chosen)
            for _ in range(5):
                logging.getLogger("aiokafka.conn").error("cannot connect")
            assert capsys.readouterr().err.count("cannot connect") == lines
    finally:
        root.handlers[:] = before
        root.setLevel(level)
