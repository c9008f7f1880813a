"""What is counted of speaking: how fast the synthesis is, how soon it is heard, and what was made for nothing."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX = "penstock_speak_"
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
FACTORS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class SpeakMetrics:
    """In a registry of its own, if it gets none."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        own = CollectorRegistry() if registry is None else registry

        def histogram(name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(PREFIX + name, text, registry=own, buckets=buckets)

        def counter(name: str, text: str) -> Counter:
            return Counter(PREFIX + name, text, registry=own)

        self.first = histogram("first_audio_seconds", "From an answer's first sentence to its first sound")
        self.synthesis = histogram("synthesis_seconds", "What the synthesizer took for a sentence")
        self.factor = histogram("real_time_factor", "Seconds of that for a second of sound", FACTORS)
        self.waiting = Gauge(PREFIX + "waiting", "Sentences that are being spoken, or wait for it", registry=own)
        self.made = counter("audio_seconds", "Seconds of sound made")
        self.unheard = counter("cancelled_audio_seconds", "Seconds of sound made that nobody heard")
        self.stalled = counter("stalled", "Times that an answer had been heard to its end before it went on")
        self.failed = counter("failed", "Answers that could not be spoken to their end")
