"""Where Kafka is, and how it is used. Knows no client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.secret import NO_SECRET, Secret

Positive = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class KafkaSettings:
    """Where Kafka is, and how it is used."""

    bootstrap: str = "localhost:9092"
    """Addresses of some of its brokers, host:port with commas between them."""
    topic_prefix: str = ""
    """What the names of all topics and groups begin with, so that several deployments can share a cluster."""
    client_id: str = "penstock"
    """The name under which the brokers know this program."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to connect."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How to log in, where `security_protocol` says SASL."""
    sasl_username: str | None = None
    """Who logs in."""
    sasl_password: Secret = NO_SECRET
    """With what password; `file:PATH` is the file that holds it."""
    tls_ca: str | None = None
    """File of the authorities that may vouch for the brokers; none means the system's own."""
    tls_certificate: str | None = None
    """File of the certificate that this program shows."""
    tls_private: str | None = None
    """File of that certificate's private key."""
    tls_passphrase: Secret = NO_SECRET
    """What opens that file, if it is encrypted; `file:PATH` is the file that holds it."""
    max_request_bytes: Positive = 1 << 20
    """Bytes of the largest record, with its key, headers and some 80 bytes of frame."""
    publish_window: Positive = 2_000
    """Records that may be on their way at once before publishers wait."""
    group_instance_id: str | None = None
    """Identity of a static group member, which outlives the process: a successor under the same identity gets the
    partitions at once. None: a dynamic member, whose partitions go to the others when it leaves."""
    session_timeout_ms: Positive = 6_000
    """Milliseconds of silence after which a group gives a member up."""
    rebalance_timeout_ms: Positive = 10_000
    """Milliseconds that a member may take to give up its partitions and join again."""
    request_timeout_ms: Positive = 15_000
    """Milliseconds that a broker may take to answer; more than `rebalance_timeout_ms`."""
    delivery_timeout_ms: Positive = 120_000
    """Milliseconds after which a record that was handed over and not acknowledged is given up."""
    start_timeout_ms: Positive = 10_000
    """Milliseconds that a start tries to reach Kafka."""
    stall_timeout_ms: Positive = 10_000
    """Milliseconds without a record, although there are some, after which a reader connects anew."""

    def __post_init__(self) -> None:
        if self.request_timeout_ms <= self.rebalance_timeout_ms:
            raise ValueError("request_timeout_ms must be more than rebalance_timeout_ms: joining a group is a request")
        if (self.tls_certificate is None) != (self.tls_private is None):
            raise ValueError("tls_certificate and tls_private go together")
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"{self.security_protocol} needs sasl_username and sasl_password")
        if self.security_protocol == "PLAINTEXT" and (self.sasl_username or self.tls_ca or self.tls_certificate):
            why = "security_protocol is PLAINTEXT, which takes no login and no certificate; set SASL_SSL, for example"
            raise ValueError(why)
