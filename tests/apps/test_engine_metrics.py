"""What an engine does stands in `/metrics`."""

from __future__ import annotations

from dataclasses import fields

from prometheus_client import CollectorRegistry

from apps.engine_metrics import COUNTERS, GAUGES, EngineCollector
from stages.llm.batch import Counts
from stages.llm.engine import State


def test_all_that_is_known_of_an_engine_is_told() -> None:
    """Each field of its state and each count has a name and a text, and is told as it is when asked."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: State(3, 7, 1000.0, 50.0, 1 << 20, 1.5e9, Counts(cancelled_tokens=9))))

    assert {*GAUGES, "counts"} == set(State._fields)
    assert set(COUNTERS) == {field.name for field in fields(Counts)}
    assert registry.get_sample_value("penstock_llm_running") == 3
    assert registry.get_sample_value("penstock_llm_waiting") == 7
    assert registry.get_sample_value("penstock_llm_output_tokens_per_s") == 50
    assert registry.get_sample_value("penstock_llm_prefix_bytes") == 1 << 20
    assert registry.get_sample_value("penstock_llm_cancelled_tokens_total") == 9
    assert registry.get_sample_value("penstock_llm_refused_total") == 0
