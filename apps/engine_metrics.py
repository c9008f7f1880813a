"""What an engine is doing and has done, for `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from stages.llm.engine import State

GAUGES = {
    "running": "Answers that are being computed",
    "waiting": "Turns that wait for a place among them",
    "prompt_tokens_per_s": "Tokens of prompts that the model computes a second, all places taken",
    "output_tokens_per_s": "Tokens of answers that it chooses a second, all places taken",
    "prefix_bytes": "Bytes of keys and values that are kept for sessions' next turns",
    "released_timestamp_seconds": "When a place came free last",
}
COUNTERS = {
    "prompt_tokens": "Tokens of prompts computed",
    "output_tokens": "Tokens of answers chosen",
    "cancelled_tokens": "Tokens chosen for answers that were given up",
    "refused": "Turns refused because the model could not begin in time",
}


class EngineCollector(Collector):
    """Tells an engine's `state` as it is when it is asked."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """A gauge for each thing it is doing, a counter for each that it did."""
        state = self._state()
        now, done = state._asdict(), asdict(state.counts)
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"penstock_llm_{name}", text, value=now[name])
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"penstock_llm_{name}", text, value=done[name])
