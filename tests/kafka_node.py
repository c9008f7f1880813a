"""One Kafka node for tests, and the two ways to run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from apps.broker import jars
from apps.broker.node import CLUSTER_ID, commands, properties
from tests.servers import HOST, Container, Program, unused_port

IMAGE = f"apache/kafka:{jars.KAFKA}"


def in_jars(folder: Path, port: int) -> Program:
    """Run the broker from the official jars."""
    rows = properties(HOST, port, unused_port(), str(folder / "data"))
    prepare, run = commands(folder, jars.kafka_jars(), rows)

    def format_storage() -> None:
        with (folder / "output.log").open("ab") as log:
            subprocess.run(prepare, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=True)

    return Program(run, folder, format_storage)


def in_container(folder: Path, port: int) -> Container:
    """Run the broker from the official image, which takes its configuration as variables."""
    rows = properties("0.0.0.0", port, 9093, "/tmp/kafka-data")  # inside the container
    fixed = {"CLUSTER_ID": CLUSTER_ID, "KAFKA_HEAP_OPTS": "-Xms128m -Xmx512m"}
    variables = {**fixed, **{f"KAFKA_{k.upper().replace('.', '_')}": v for k, v in rows.items()}}
    settings = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    return Container(["--publish", f"{HOST}:{port}:{port}", *settings, IMAGE], folder)
