"""One Kafka node for tests: its configuration, and the two ways to run it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests import jars
from tests.servers import HOST, Container, Program, unused_port

CLUSTER_ID = "cGVuc3RvY2stdGVzdHMhIQ"  # 16 bytes in base64, as Kafka wants them
IMAGE = f"apache/kafka:{jars.KAFKA}"

# The first compiler alone starts the broker in two thirds of the time, and a broker under test needs no more.
JAVA = ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

LOG4J = """<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""

INTERNAL_TOPICS = {
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}

TEMPERAMENT = {
    "auto.create.topics.enable": "false",  # a typo in a topic's name shall fail
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "broker.heartbeat.interval.ms": "300",
    "broker.session.timeout.ms": "2000",  # a restart waits out the dead one's registration
    "log.cleaner.dedupe.buffer.size": str(16 * 2**20),  # of the heap; 128 MB by default
    "num.network.threads": "2",
    "num.io.threads": "4",
}

NOTHING: Mapping[str, str] = MappingProxyType({})


def properties(host: str, port: int, controller_port: int, data: str) -> dict[str, str]:
    """Configure one KRaft node for tests: small, and quick to notice a death."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        **INTERNAL_TOPICS,
        **TEMPERAMENT,
    }


def in_jars(folder: Path, port: int, more: Mapping[str, str] = NOTHING, *, formatting: Sequence[str] = ()) -> Program:
    """Run the broker from the official jars, with `more` properties and `formatting` options of its storage."""
    libs = jars.kafka_jars()
    java = [*JAVA, f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}", "-cp", f"{libs}/*"]  # the glob is Java's
    config = folder / "server.properties"
    (folder / "log4j2.xml").write_text(LOG4J)
    rows = {**properties(HOST, port, unused_port(), str(folder / "data")), **more}
    config.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))

    def format_storage() -> None:
        command = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config), *formatting]
        with (folder / "output.log").open("ab") as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=True)

    return Program([*java, "kafka.Kafka", str(config)], folder, format_storage)


def in_container(folder: Path, port: int) -> Container:
    """Run the broker from the official image, which takes its configuration as variables."""
    rows = properties("0.0.0.0", port, 9093, "/tmp/kafka-data")  # inside the container
    fixed = {"CLUSTER_ID": CLUSTER_ID, "KAFKA_HEAP_OPTS": "-Xms128m -Xmx512m"}
    variables = {**fixed, **{f"KAFKA_{k.upper().replace('.', '_')}": v for k, v in rows.items()}}
    settings = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    return Container(["--publish", f"{HOST}:{port}:{port}", *settings, IMAGE], folder)
