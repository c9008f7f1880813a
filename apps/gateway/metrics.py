"""What the gateway counts and measures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """The gateway's metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge(
            "penstock_gateway_connections", "Open client connections", ["protocol"], registry=registry
        )
        self.sessions = Gauge("penstock_gateway_sessions", "Sessions that are kept", registry=registry)
        self.closes = Counter("penstock_gateway_closes", "Closed connections", ["protocol", "code"], registry=registry)
        self.refused = Counter("penstock_gateway_refused", "Connections refused", ["why"], registry=registry)
        self.turns = Counter("penstock_gateway_turns", "Turns that ended", ["status"], registry=registry)
        self.active = Gauge("penstock_gateway_turns_active", "Turns under way", registry=registry)
        self.first_token = Histogram(
            "penstock_gateway_first_token_seconds",
            "From the accepted request to the first text",
            buckets=SECONDS,
            registry=registry,
        )
        self.turn_seconds = Histogram(
            "penstock_gateway_turn_seconds",
            "From the accepted request to the end of the turn",
            buckets=SECONDS,
            registry=registry,
        )
        self.repeated = Counter(
            "penstock_gateway_repeated", "Client events that were done before a reconnect", registry=registry
        )
        self.resume_seconds = Histogram(
            "penstock_gateway_resume_seconds",
            "From the accepted return of a client to its session's going on",
            buckets=SECONDS,
            registry=registry,
        )
        self.errors = Counter("penstock_gateway_errors", "Errors told to clients", ["code"], registry=registry)
        self.events_in = Counter("penstock_gateway_events_in", "Client events", ["type"], registry=registry)
        self.events_out = Counter("penstock_gateway_events_out", "Events sent to clients", ["type"], registry=registry)
        self.overflows = Counter(
            "penstock_gateway_send_queue_overflows", "Connections closed for being too slow", registry=registry
        )
        self.skipped = Counter(
            "penstock_gateway_records_skipped", "Records read that were nobody's here", ["why"], registry=registry
        )
        self.undelivered = Counter(
            "penstock_gateway_undelivered", "Records that did not reach the log", ["topic"], registry=registry
        )
