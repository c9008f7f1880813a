"""A Kafka broker that lets in only who proves itself: by name and password, over TLS, by a certificate, or both."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from apps.broker import jars
from apps.broker.node import commands, properties
from tests import services
from tests.certificates import Certificate, self_signed
from tests.servers import HOST, Program, unused_port

USER, PASSWORD = "penstock", "correct-horse-battery"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecureKafka(NamedTuple):
    """The broker's addresses by how they are guarded, and the certificates: its own, and the one that it trusts."""

    sasl: str
    tls: str
    both: str
    broker: Certificate
    client: Certificate


@contextlib.contextmanager
def secure_kafka() -> Iterator[SecureKafka]:
    """Keep such a broker running."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-secure-kafka-"))
    port = unused_port()
    ports = {name: unused_port() for name in ("SASLP", "TLS", "BOTH")}
    broker, client = self_signed(folder), self_signed(folder, "client")
    rows = _listeners(folder, port, ports) | _logins() | _certificates(folder, broker, client)
    users = [
        part
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for part in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
    ]
    prepare, run = commands(folder, jars.kafka_jars(), rows)

    def format_storage() -> None:
        with (folder / "output.log").open("ab") as log:
            subprocess.run([*prepare, *users], stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=True)

    with services.running(services.KafkaService(Program(run, folder, format_storage), f"{HOST}:{port}")):
        sasl, tls, both = (f"{HOST}:{ports[name]}" for name in ("SASLP", "TLS", "BOTH"))
        yield SecureKafka(sasl, tls, both, broker, client)


def _listeners(folder: Path, port: int, ports: dict[str, int]) -> dict[str, str]:
    plain = properties(HOST, port, unused_port(), str(folder / "data"))
    guarded = ",".join(f"{name}://{HOST}:{at}" for name, at in ports.items())
    protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASLP:SASL_PLAINTEXT,TLS:SSL,BOTH:SASL_SSL"
    return {
        **plain,
        "listeners": f"{plain['listeners']},{guarded}",
        "advertised.listeners": f"{plain['advertised.listeners']},{guarded}",
        "listener.security.protocol.map": protocols,
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _logins() -> dict[str, str]:
    plain = f'{PLAIN} required user_{USER}="{PASSWORD}";'
    rows = {"sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"}
    for listener in ("saslp", "both"):
        rows[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            rows[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = f"{SCRAM} required;"
    return rows


def _certificates(folder: Path, broker: Certificate, client: Certificate) -> dict[str, str]:
    """The broker shows its own certificate; on the listener `tls` a client must show one that is trusted."""
    both = folder / "broker.pem"
    both.write_bytes(broker.key.read_bytes() + broker.cert.read_bytes())
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(client.cert),
        "listener.name.tls.ssl.client.auth": "required",
    }
