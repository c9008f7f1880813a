"""Real Kafka and Redis: for the tests, and with `python -m tests.services` for a developer to play with.

Kafka is `KAFKA_BOOTSTRAP_SERVERS` if set, else the official jars under Java, else a container. Redis is
`REDIS_URL`, else `redis-server`, else a container. What is started here has ports and data of its own, and dies with
this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console

from apps.broker import jars
from tests import kafka_node, programs
from tests.servers import HOST, Container, Program, Server, unused_port

READY_DEADLINE_S = 45.0
REDIS_IMAGE = "redis:7-alpine"

S = TypeVar("S", bound="Service")


class ServiceFailed(Exception):
    """A service did not become ready; the text ends with the tail of its log."""


class NotOurs(Exception):
    """The service was given in the environment: it is not for the tests to kill."""


class Service:
    """A server with an address and a probe that tells when it answers."""

    name = "service"

    def __init__(self, server: Server | None, address: str) -> None:
        self._server = server
        self.address = address

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            ServiceFailed: It did not in time, or it ended.
        """
        if self._server:
            self._server.start()
        self._await_ready(time.monotonic() + READY_DEADLINE_S)

    def kill(self) -> None:
        """Kill -9; data and address stay for `restart`."""
        self._ours().kill()

    def restart(self) -> None:
        """Start it again after `kill`, on the same address and data; return when it answers.

        Blocks: a coroutine that wants to see the gap calls it in a thread.
        """
        self._ours().kill()
        self.start()

    def stop(self) -> None:
        """Stop it for good and remove its data; one given in the environment is left as it is."""
        if self._server:
            self._server.remove()

    @property
    def alive(self) -> bool:
        """Whether the process runs (always, as far as we know, where it is not ours)."""
        return self._server is None or self._server.alive

    def _ours(self) -> Server:
        if self._server is None:
            raise NotOurs(f"{self.name} at {self.address} was given in the environment")
        return self._server

    def _await_ready(self, deadline: float) -> None:
        refused = "nobody asked"
        while self.alive and (left := deadline - time.monotonic()) > 0:
            try:
                return self._probe(left)
            except (OSError, TimeoutError, KafkaError, RedisError) as error:
                refused = str(error)
                time.sleep(0.05)
        log = self._server.log() if self._server else ""
        state = f"did not answer within {READY_DEADLINE_S:.0f} s ({refused})" if self.alive else "ended"
        self.stop()
        raise ServiceFailed(f"{self.name} at {self.address} {state}; its log ends:\n{log}")

    def _probe(self, timeout_s: float) -> None:
        raise NotImplementedError


class KafkaService(Service):
    """One Kafka broker; topics are created by whoever needs them."""

    name = "Kafka"

    @property
    def bootstrap(self) -> str:
        """The address that clients are given, host:port."""
        return self.address

    def _probe(self, timeout_s: float) -> None:
        host, _, port = self.address.split(",")[0].rpartition(":")
        socket.create_connection((host, int(port)), timeout=1).close()  # spares the client's log a refused connection
        in_new_loop(asyncio.wait_for(kafka_answers(self.address), timeout_s))


class RedisService(Service):
    """One Redis, which keeps nothing on disk."""

    name = "Redis"

    @property
    def url(self) -> str:
        """The address that clients are given."""
        return self.address

    def _probe(self, timeout_s: float) -> None:
        with Redis.from_url(self.address, socket_timeout=min(timeout_s, 2), socket_connect_timeout=1) as client:
            client.ping()


async def kafka_answers(bootstrap: str) -> None:
    """Return when an admin client is told of a broker that takes requests: an open port is not yet that."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    try:
        await admin.start()
        if not (await admin.describe_cluster())["brokers"]:
            raise KafkaError("the broker is not registered yet")
    finally:
        await admin.close()


def in_new_loop(work: Coroutine[object, object, None]) -> None:
    """Run `work` to its end, also where this thread runs an event loop already."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def jars_will_do() -> bool:
    """Tell whether the official jars can be run here, and are here or can be fetched."""
    return programs.java_ready() and (programs.on_path("mvn") or jars.complete(jars.cache_folder()))


def new_kafka() -> KafkaService:
    """Make a broker of our own, not started yet.

    Raises:
        ProgramMissing: There is nothing to run it with.
    """
    folder, port = Path(tempfile.mkdtemp(prefix="penstock-kafka-")), unused_port()
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(shutil.rmtree, folder)
        if jars_will_do():
            server: Server = kafka_node.in_jars(folder, port)
        elif programs.docker_ready():
            server = kafka_node.in_container(folder, port)
        else:
            raise programs.ProgramMissing(f"Kafka cannot run; {programs.cure('java', 'maven')}")
        on_failure.pop_all()
    return KafkaService(server, f"{HOST}:{port}")


def new_redis() -> RedisService:
    """Make a Redis of our own, not started yet.

    Raises:
        ProgramMissing: There is nothing to run it with.
    """
    port, options = unused_port(), ["--save", "", "--appendonly", "no"]
    found, containers = shutil.which("redis-server"), programs.docker_ready
    if not found and not containers():
        raise programs.ProgramMissing(f"Redis cannot run; {programs.cure('redis')}")
    folder = Path(tempfile.mkdtemp(prefix="penstock-redis-"))
    if found:
        argv = [found, "--bind", HOST, "--port", str(port), "--dir", str(folder), *options]
        server: Server = Program(argv, folder)
    else:
        server = Container(["--publish", f"{HOST}:{port}:6379", REDIS_IMAGE, "redis-server", *options], folder)
    return RedisService(server, f"redis://{HOST}:{port}/0")


@contextlib.contextmanager
def running(service: S) -> Iterator[S]:
    """Keep `service` running meanwhile."""
    try:
        service.start()
        yield service
    finally:
        service.stop()


def kafka() -> contextlib.AbstractContextManager[KafkaService]:
    """Keep the broker of `KAFKA_BOOTSTRAP_SERVERS`, or else one of our own."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    return running(KafkaService(None, given) if given else new_kafka())


def redis() -> contextlib.AbstractContextManager[RedisService]:
    """Keep the Redis of `REDIS_URL`, or else one of our own."""
    given = os.environ.get("REDIS_URL")
    return running(RedisService(None, given) if given else new_redis())


def wanted() -> bool:
    """Tell whether the tests may ask for real services: always, unless `SERVICES=none`.

    Raises:
        ValueError: `SERVICES` says something else.
    """
    said = os.environ.get("SERVICES", "")
    if said not in ("", "none"):
        raise ValueError(f"SERVICES={said}: it is 'none', or not set")
    return said != "none"


def prepare(console: Console) -> None:
    """Bring whatever the tests need, once, so that no test waits for a download.

    Raises:
        ProgramMissing: Something is missing that we cannot install.
    """
    if missing := programs.missing():
        console.print(f"Not here yet: {', '.join(need.name for need in missing)}.")
        console.print(f"Installed {', '.join(programs.ensure())}.")
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return
    if jars_will_do():
        console.print(f"Kafka {jars.KAFKA}: {jars.kafka_jars()}")
    else:
        subprocess.run(["docker", "pull", kafka_node.IMAGE], stdin=subprocess.DEVNULL, timeout=600, check=True)


def keep_running(console: Console) -> int:
    """Start both, say where they are, and wait for Ctrl-C or SIGTERM."""
    console.print("Starting Kafka and Redis ...")
    with kafka() as broker, redis() as store:
        console.print(f"\n[bold]Kafka[/]  {broker.bootstrap}\n[bold]Redis[/]  {store.url}\n")
        console.print("Use them from another terminal, `make test` included:\n")
        console.print(f"  export KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap}\n  export REDIS_URL={store.url}\n")
        console.print("Ctrl-C stops both and removes their data.")
        while broker.alive and store.alive:
            time.sleep(0.5)
    console.print("[red]A service has ended by itself.[/]")
    return 1


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description="Real Kafka and Redis to play with.")
    parser.add_argument("--prepare", action="store_true", help="install what the tests need, start nothing")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.prepare, highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    try:
        if not arguments.prepare:
            return keep_running(console)
        if wanted():
            prepare(console)
    except KeyboardInterrupt:
        console.print("Stopped.")
    except (programs.ProgramMissing, jars.JarsMissing, ServiceFailed, ValueError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
