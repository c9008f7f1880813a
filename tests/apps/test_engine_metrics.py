"""What an engine does stands in `/metrics`."""

from __future__ import annotations

from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry

from apps.engine_metrics import COUNTERS, GAUGES, EngineCollector
from stages.llm.guessing.guesses import Guessed, SpeculationCounts
from stages.llm.scheduler import Counts
from stages.llm.state import State, Steps


@pytest.fixture
def state() -> State:
    """An engine that has done something."""
    steps = Steps()
    steps.saw(0.0015, 3)
    steps.saw(60.0, 10_000)
    guesses = SpeculationCounts(
        steps=5, tokens=9, lengths=[2, 0, 3], drafters={"ngram": Guessed(3, 6, 4, [3, 1]), "draft": Guessed()}
    )
    return State(3, 7, 1000.0, 50.0, 0.25, 1 << 20, 1.5e9, Counts(cancelled_tokens=9), steps, guesses)


def test_all_that_is_known_of_an_engine_is_told(state: State) -> None:
    """Each field of its state and each count has a name and a text, and is told as it is when asked."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: state))

    assert {*GAUGES, "counts", "steps", "speculation"} == set(State._fields)
    assert set(COUNTERS) == {field.name for field in fields(Counts)}
    for name, value in {
        "num_requests_running": 3,
        "num_requests_waiting": 7,
        "output_tokens_per_s": 50,
        "kv_cache_usage_perc": 0.25,
        "prefix_bytes": 1 << 20,
        "cancelled_tokens_total": 9,
        "num_preemptions_total": 0,
        "refused_total": 0,
        "answer_step_tokens_total": 9,
        "step_seconds_count": 2,
        "step_seconds_sum": 60.0015,
    }.items():
        assert registry.get_sample_value(f"penstock_llm_{name}") == value, name


def test_a_value_is_in_its_bucket_and_all_above(state: State) -> None:
    """Histograms are cumulative, and what is beyond all bounds is in the last bucket alone."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: state))

    def bucket(bound: str) -> float | None:
        return registry.get_sample_value("penstock_llm_step_seconds_bucket", {"le": bound})

    assert [bucket(bound) for bound in ("0.001", "0.002", "5.0", "+Inf")] == [0, 1, 1, 2]


def test_guesses_are_told_by_drafter(state: State) -> None:
    """Under vLLM's names, with the drafter as a label; nothing where nobody guesses."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: state))
    labels = {"drafter": "ngram"}
    for name, value in {"drafts": 3, "draft_tokens": 6, "accepted_tokens": 4}.items():
        assert registry.get_sample_value(f"penstock_llm_spec_decode_num_{name}_total", labels) == value
    place = labels | {"position": "1"}
    assert registry.get_sample_value("penstock_llm_spec_decode_num_accepted_tokens_per_pos_total", place) == 1
    assert registry.get_sample_value("penstock_llm_spec_decode_length_total", {"length": "2"}) == 3

    plain = CollectorRegistry()
    plain.register(EngineCollector(lambda: state._replace(speculation=None)))
    assert not [metric.name for metric in plain.collect() if "spec_decode" in metric.name]
