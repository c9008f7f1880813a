"""What is counted of speech: the recogniser's queue and pace, and how late its words are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stages.preprocess.speech.recogniser import Urgency

PREFIX = "penstock_speech_"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class SpeechMetrics:
    """In a registry of its own, if it gets none."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = CollectorRegistry() if registry is None else registry
        self.waited = self._histogram("queue_seconds", "How long a piece waited for the recogniser", kinds=True)
        self.recognising = self._histogram("recognising_seconds", "What a batch took in the recogniser")
        self.batch = self._histogram("batch_pieces", "Pieces in a batch", buckets=(1, 2, 4, 8, 16, 32))
        self.factor = self._histogram(
            "real_time_factor", "Seconds of work for a second of sound in a batch", buckets=FACTORS
        )
        self.final = self._histogram("final_seconds", "From the end of a turn to what was said in it")
        self.lag = self._histogram("partial_lag_seconds", "From the sound of a piece to the words told of it meanwhile")
        self.vad = self._histogram("vad_seconds", "What a piece of sound took until its frames were judged")
        self.recognised = self._counter("recognised_pieces", "Pieces recognised", ["kind"])
        self.sound = self._counter("recognised_sound_seconds", "Seconds of sound in them", ["kind"])
        self.heard = self._counter("heard_seconds", "Seconds of sound that came")
        self.replaced = self._counter("partials_dropped", "Pieces not recognised because a longer one was there")
        self.refused = self._counter("refused", "Final pieces refused because too many waited")
        self.failed = self._counter("failed", "Pieces at which the recogniser failed")
        self.turns = self._counter("turns", "Turns told to their end", ["outcome"])

    def watch(self, waiting: Callable[[Urgency], int]) -> None:
        """Tell how many pieces wait of each kind, whenever it is asked."""
        gauge = Gauge(PREFIX + "queue_pieces", "Pieces that wait", ["kind"], registry=self._registry)
        for kind in get_args(Urgency):
            gauge.labels(kind).set_function(partial(waiting, kind))

    def _histogram(
        self, name: str, text: str, *, buckets: tuple[float, ...] = SECONDS, kinds: bool = False
    ) -> Histogram:
        return Histogram(PREFIX + name, text, ["kind"] if kinds else [], registry=self._registry, buckets=buckets)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(PREFIX + name, text, labels or [], registry=self._registry)
