"""What an engine is doing and has done, for `/metrics`: under vLLM's names where it has them, with our prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from stages.llm.guessing.guesses import SpeculationCounts
    from stages.llm.state import Histogram, State

PREFIX = "penstock_llm_"
GAUGES = {
    "num_requests_running": "Answers that are being computed",
    "num_requests_waiting": "Turns that wait for a place among them",
    "prompt_tokens_per_s": "Tokens of prompts that the model computes a second, all places taken",
    "output_tokens_per_s": "Tokens of answers that it chooses a second, all places taken",
    "kv_cache_usage_perc": "Blocks of keys and values that answers use, 1 is all",
    "prefix_bytes": "Bytes of keys and values that are kept though no answer uses them",
    "released_timestamp_seconds": "When a place came free last",
}
COUNTERS = {
    "prompt_tokens": "Tokens of the prompts that got a place, whether computed or found",
    "generation_tokens": "Tokens of answers chosen",
    "cancelled_tokens": "Tokens chosen for answers that were given up",
    "refused": "Turns refused because the model could not begin in time",
    "preemptions": "Answers that had to wait in their middle because memory ran out",
    "prefix_cache_queries": "Tokens of prompts that were looked for among what is kept",
    "prefix_cache_hits": "Tokens of prompts that were found there",
}
NAMES = {"preemptions": "num_preemptions"}
"""Where the metric is called otherwise."""
BY = {
    "drafts": "Times that it guessed",
    "draft_tokens": "Tokens that it guessed",
    "accepted_tokens": "Tokens that it guessed rightly",
}


class EngineCollector(Collector):
    """Tells an engine's `state` as it is when it is asked."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """A gauge for each thing it is doing, a counter for each that it did, histograms of its steps."""
        state = self._state()
        now, done = state._asdict(), asdict(state.counts)
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=now[name])
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(PREFIX + NAMES.get(name, name), text, value=done[name])
        yield _histogram("step_seconds", "What a step took", state.steps.seconds)
        yield _histogram("iteration_tokens_total", "Tokens computed in a step", state.steps.tokens)
        if state.speculation is not None:
            yield from _speculation(state.speculation)


def _histogram(name: str, text: str, known: Histogram) -> HistogramMetricFamily:
    bounds = [*map(str, known.bounds), "+Inf"]
    return HistogramMetricFamily(
        PREFIX + name, text, buckets=list(zip(bounds, accumulate(known.counts), strict=True)), sum_value=known.total
    )


def _speculation(counts: SpeculationCounts) -> Iterator[Metric]:
    """By drafter, what was guessed and what was right; and how far was guessed at all, in steps of single answers.

    The model's thread goes on counting meanwhile, so what grows is copied first.
    """
    for name, text in BY.items():
        metric = CounterMetricFamily(f"{PREFIX}spec_decode_num_{name}", text, labels=["drafter"])
        for drafter, guessed in list(counts.drafters.items()):
            metric.add_metric([drafter], getattr(guessed, name))
        yield metric
    rights = CounterMetricFamily(
        f"{PREFIX}spec_decode_num_accepted_tokens_per_pos",
        "Right guesses by their place",
        labels=["drafter", "position"],
    )
    for drafter, guessed in list(counts.drafters.items()):
        for position, count in enumerate(list(guessed.accepted_tokens_per_position)):
            rights.add_metric([drafter, str(position)], count)
    yield rights
    lengths = CounterMetricFamily(
        f"{PREFIX}spec_decode_length", "Steps of an answer by the number of guesses", labels=["length"]
    )
    for length, count in enumerate(list(counts.lengths)):
        lengths.add_metric([str(length)], count)
    yield lengths
    yield CounterMetricFamily(f"{PREFIX}answer_steps", "Steps in which an answer got tokens", value=counts.steps)
    yield CounterMetricFamily(f"{PREFIX}answer_step_tokens", "Tokens that it got there", value=counts.tokens)
