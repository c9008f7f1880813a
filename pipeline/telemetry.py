"""Metrics, traces and logs of a program: what the loop counts, how a trace travels, how a log line looks.

Metrics go to a registry that the program owns; without an OTLP endpoint, traces cost one header copy and go nowhere.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.bus import Headers
from pipeline.errors import SettingsError
from pipeline.headers import TRACE

SELDOM_S = 10.0
MOST_WORDS = 200
LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class LoopMetrics:
    """What a stage loop counts, all labelled by `stage`."""

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        def counter(name: str, text: str) -> Counter:
            shared: Counter = _shared(registry, Counter, f"penstock_stage_{name}", text)
            return shared.labels(stage)

        self.records = counter("records", "Records taken from the bus")
        self.published = counter("published", "Messages handed to the bus")
        self.retries = counter("retries", "Attempts repeated after an error that a retry can mend")
        self.refused = counter("refused", "Turns refused")
        self.buried = counter("dead_letters", "Records given up for good")
        self.stopped = counter("stopped", "Turns given up: cancelled, or out of time")
        self.fenced = counter("fenced", "Records of former owners, dropped")
        self.repeated = counter("repeated", "Records of turns that were already finished, dropped")
        self.lost = counter("partitions_lost", "Partitions that went to another member with work in hand")
        self.pauses = counter("pauses", "Partitions paused at the bound")
        gauge: Gauge = _shared(registry, Gauge, "penstock_stage_in_hand", "Turns being worked on")
        self.in_hand: Gauge = gauge.labels(stage)
        seconds: Histogram = _shared(
            registry, Histogram, "penstock_stage_seconds", "From a turn's start to its end", LATENCY_BUCKETS
        )
        self.seconds: Histogram = seconds.labels(stage)


def _shared(registry: CollectorRegistry, kind: Any, name: str, text: str, buckets: tuple[float, ...] = ()) -> Any:
    """The metric `name` of `registry`, made at first use: several loops of a program share it."""
    existing = registry._names_to_collectors.get(name)  # noqa: SLF001 - the library has no other way to ask
    if existing is not None:
        return existing
    options: dict[str, Any] = {"buckets": buckets} if buckets else {}
    return kind(name, text, ["stage"], registry=registry, **options)


def new_traceparent() -> str:
    """A fresh W3C trace context, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


class Tracing:
    """Spans around the work of a stage, and the trace context that its messages pass on."""

    def __init__(self, endpoint: str | None = None, *, service: str = "penstock") -> None:
        self._tracer = _tracer(endpoint, service) if endpoint else None
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str, headers: Headers) -> AbstractContextManager[Headers]:
        """A span named `name` below the one in `headers`; gives the headers for what comes out of it."""
        return nullcontext(headers) if self._tracer is None else self._span(self._tracer, name, headers)

    @contextmanager
    def _span(self, tracer: trace.Tracer, name: str, headers: Headers) -> Generator[Headers, None, None]:
        context = self._propagator.extract({TRACE: headers[TRACE]}) if TRACE in headers else None
        with tracer.start_as_current_span(name, context=context):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            yield {**headers, **carrier}


def _tracer(endpoint: str, service: str) -> trace.Tracer:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SettingsError("otlp_endpoint", "needs the exporter: pip install 'penstock[otlp]'") from error

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider.get_tracer("penstock")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class Seldom(logging.Filter):
    """Of what `library` says in the same words, one line in `seconds`, and how many there were.

    While Kafka is away, aiokafka tells of it sixty times a second in each program, for hours if need be.
    """

    def __init__(self, library: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(library)
        self._seconds, self._clock = seconds, clock
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is told."""
        if not super().filter(record):
            return True
        words, now = (record.name, str(record.msg)), self._clock()
        at, left = self._told.pop(words, (-math.inf, 0))
        if now - at < self._seconds:
            self._told[words] = at, left + 1
            return False
        self._told[words] = now, 0
        if len(self._told) > MOST_WORDS:
            del self._told[next(iter(self._told))]
        if left:
            record.msg = f"{record.msg} (and {left} times before)"
        return True


def configure_logging(level: str = "info", style: Literal["text", "json"] = "text") -> None:
    """Log to standard error, in lines for people or for machines."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if style == "json" else text)
    if level.lower() != "debug":
        handler.addFilter(Seldom("aiokafka", SELDOM_S))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiokafka").setLevel(max(logging.WARNING, logging.getLogger().level))
