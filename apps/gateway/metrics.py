"""What the gateway counts and measures."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from apps.gateway.answer import Answer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """The gateway's metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = partial(_seconds, registry)
        self.connections = Gauge(
            "penstock_gateway_connections", "Open client connections", ["protocol"], registry=registry
        )
        self.sessions = Gauge("penstock_gateway_sessions", "Sessions that are kept", registry=registry)
        self.closes = Counter("penstock_gateway_closes", "Closed connections", ["protocol", "code"], registry=registry)
        self.refused = Counter("penstock_gateway_refused", "Connections refused", ["why"], registry=registry)
        self.turns = Counter("penstock_gateway_turns", "Turns that ended", ["status"], registry=registry)
        self.active = Gauge("penstock_gateway_turns_active", "Turns under way", registry=registry)
        self.first_token = seconds("first_token", "From the accepted request to the first text")
        self.voice = VoiceMetrics(registry)
        self.turn_seconds = seconds("turn", "From the accepted request to the end of the turn")
        self.repeated = Counter(
            "penstock_gateway_repeated", "Client events that were done before a reconnect", registry=registry
        )
        self.resume_seconds = seconds("resume", "From the accepted return of a client to its session's going on")
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

    def first_text(self, answer: Answer, now: float) -> None:
        """The first text of `answer` has come."""
        self.first_token.observe(max(0.0, now - answer.asked_at))
        if answer.heard_at is not None:
            self.voice.first_token.observe(max(0.0, now - answer.heard_at))

    def first_audio(self, answer: Answer, now: float) -> None:
        """The first audio of `answer` has come."""
        self.voice.first_audio.observe(
            max(0.0, now - (answer.asked_at if answer.heard_at is None else answer.heard_at))
        )

    def ended(self, answer: Answer, status: str, now: float) -> None:
        """`answer` is over."""
        self.active.dec()
        self.turns.labels(status).inc()
        self.turn_seconds.observe(max(0.0, now - answer.asked_at))
        if answer.cut_at is not None:
            self.voice.silenced.observe(max(0.0, now - answer.cut_at))


class VoiceMetrics:
    """What is counted and measured of sound. Speech ends where the speech stage says so, after the silence it waits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = partial(_seconds, registry)
        self.sessions = Gauge("penstock_gateway_voice_sessions", "Sessions that send audio", registry=registry)
        self.audio = Counter("penstock_gateway_voice_audio_seconds", "Audio that was taken", registry=registry)
        self.transcript = seconds("voice_transcript", "From the end of speech to its transcript")
        self.first_token = seconds("voice_first_token", "From the end of speech to the answer's first text")
        self.first_audio = seconds(
            "voice_first_audio", "From the end of speech, or the request, to the answer's first audio"
        )
        self.partial_lag = seconds(
            "voice_partial_lag", "From the end of a word to its being told before its turn is over"
        )
        self.interruptions = Counter(
            "penstock_gateway_voice_interruptions", "Answers that were interrupted", registry=registry
        )
        self.silenced = seconds("voice_silenced", "From the beginning of speech to the end of the answer it interrupts")
        self.untranscribed = Counter(
            "penstock_gateway_voice_untranscribed", "Speech whose transcript failed", ["code"], registry=registry
        )


def _seconds(registry: CollectorRegistry, name: str, what: str) -> Histogram:
    return Histogram(f"penstock_gateway_{name}_seconds", what, buckets=SECONDS, registry=registry)
