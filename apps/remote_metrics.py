"""What the engine that streams from a server is doing and has done, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from stages.llm.remote.engine import OpenAIEngine


class RemoteCollector(Collector):
    """Tells what `engine` does when it is asked."""

    def __init__(self, engine: OpenAIEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """By the names that our own engine has, where it has them."""
        engine, counts = self._engine, self._engine.counts
        for name, text, value in (
            ("num_requests_running", "Answers that are being computed", engine.places.taken),
            ("num_requests_waiting", "Turns that wait for a place among them", engine.places.waiting),
            ("remote_up", "Whether the model's server can be used", not engine.problem),
        ):
            yield GaugeMetricFamily(f"penstock_llm_{name}", text, value=float(value))
        for name, text, value in (
            ("refused", "Turns refused because there was no room for them, here or there", engine.refused),
            ("remote_requests", "Requests to the model's server", counts.requests),
            ("remote_cuts", "Answers of it that broke off, and were gone on with", counts.cuts),
            ("remote_errors", "Requests that it did not answer", counts.errors),
        ):
            yield CounterMetricFamily(f"penstock_llm_{name}", text, value=float(value))
