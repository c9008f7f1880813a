"""One Kafka node that is its own controller: its configuration, and the commands that run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from apps.broker.ports import HOST

CLUSTER_ID = "cGVuc3RvY2stdGVzdHMhIQ"  # 16 bytes in base64, as Kafka wants them

# The first compiler alone starts the broker in two thirds of the time, and a broker under test needs no more.
JAVA = ("java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

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


def properties(host: str, port: int, controller_port: int, data: str) -> dict[str, str]:
    """Configure one small KRaft node that is quick to notice a death; it listens on `host`."""
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


def commands(folder: Path, libs: Path, rows: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Write a node's configuration into `folder`; gives what prepares its storage once, and what runs it.

    Args:
        folder: Where configuration and data are.
        libs: The folder of Kafka's jars.
        rows: See `properties`.
    """
    java = [*JAVA, f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}", "-cp", f"{libs}/*"]  # the glob is Java's
    config = folder / "server.properties"
    (folder / "log4j2.xml").write_text(LOG4J)
    config.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))
    prepare = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)]
    return prepare, [*java, "kafka.Kafka", str(config)]
