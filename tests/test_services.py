"""The helper that the other tests stand on: real servers that start, survive what they should, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from playwright.async_api import async_playwright
from redis.asyncio import Redis

from apps.broker import jars
from tests import programs, services
from tests.guard import Guarded
from tests.servers import Program
from tests.services import KafkaService, NotOurs, RedisService, ServiceFailed

DEADLINE_S = 20.0
HERE = TopicPartition("things", 0)
STARTED = "Ctrl-C stops both and removes their data.\n"

# Stand-ins: a Docker whose containers are the real redis-server, and a Maven that brings one jar.
DOCKER = """
echo "$*" >> {calls}
case "$1" in
  run) echo "$5" > {calls}.port ;;
  start) ;;
  *) exit 0 ;;
esac
IFS=: read -r _ port _ < {calls}.port
exec {redis} --bind 127.0.0.1 --port "$port" --save ''
"""
MAVEN = """
echo called >> {calls}
for argument; do case "$argument" in -DoutputDirectory=*) into=${{argument#*=}} ;; esac; done
sleep 0.2
mkdir -p "$into" && echo content > "$into/one.jar"
"""


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty the PATH and the cache, and take away what the environment gives."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for need in programs.NEEDS.values():
        monkeypatch.delenv(need.variable, raising=False)


def put_program(folder: Path, name: str, script: str) -> None:
    """Put an executable shell script into `folder`."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


async def write(bootstrap: str, *values: bytes) -> None:
    """Produce `values` and wait for the acknowledgements."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(HERE.topic, value, partition=HERE.partition)


async def read(bootstrap: str, count: int) -> list[bytes]:
    """Consume the first `count` values."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([HERE])
        await consumer.seek_to_beginning()
        async with asyncio.timeout(DEADLINE_S):
            return [bytes((await consumer.getone()).value or b"") for _ in range(count)]


async def make_topic(bootstrap: str) -> None:
    """Create the topic with one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(HERE.topic, 1, 1)])
    finally:
        await admin.close()


def processes_naming(text: str) -> list[int]:
    """List the processes whose command line holds `text`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text in entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(entry.parent.name))
    return found


def await_gone(text: str) -> list[int]:
    """Wait till no process names `text`, and list those that still do at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while (left := processes_naming(text)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.mark.slow
async def test_a_killed_broker_comes_back_with_its_data(own_kafka: KafkaService) -> None:
    """After kill -9 and a restart the messages are there, at the same address."""
    await make_topic(own_kafka.bootstrap)
    await write(own_kafka.bootstrap, b"before")

    await asyncio.to_thread(own_kafka.kill)
    alive_after_kill = own_kafka.alive
    await asyncio.to_thread(own_kafka.restart)
    await write(own_kafka.bootstrap, b"after")

    assert not alive_after_kill
    assert await read(own_kafka.bootstrap, 2) == [b"before", b"after"]


@pytest.mark.kafka
@pytest.mark.slow
def test_stop_leaves_neither_process_nor_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stopped broker has left no process and no folder behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with services.running(services.new_kafka()):
        during = processes_naming(str(tmp_path))

    assert during
    assert not processes_naming(str(tmp_path))
    assert not list(tmp_path.iterdir())


async def test_redis_can_be_killed_and_restarted(own_redis: RedisService) -> None:
    """After kill -9 and a restart a Redis answers at the same address."""
    await asyncio.to_thread(own_redis.kill)
    await asyncio.to_thread(own_redis.restart)
    async with Redis.from_url(own_redis.url) as client:
        assert await client.ping()


async def test_the_browser_shows_a_page(chromium: str) -> None:
    """Playwright drives the Chromium that was found, as root too."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto("data:text/html,<title>water</title>")
        assert await page.title() == "water"
        await browser.close()


async def test_a_broker_given_in_the_environment_is_used_and_left_alone(
    kafka: KafkaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper hands on KAFKA_BOOTSTRAP_SERVERS, and neither kills nor stops what it did not start."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)

    with services.kafka() as given:
        assert given.bootstrap == kafka.bootstrap
        with pytest.raises(NotOurs):
            given.kill()

    await services.kafka_answers(kafka.bootstrap)


async def test_a_redis_given_in_the_environment_is_used_and_left_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper hands on REDIS_URL, and does not stop what it did not start."""
    monkeypatch.setenv("REDIS_URL", redis_url)

    with services.redis() as given:
        assert given.url == redis_url

    async with Redis.from_url(redis_url) as client:
        assert await client.ping()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
@pytest.mark.redis
def test_what_a_developer_started_ends_with_the_command(
    number: signal.Signals, status: int, kafka: KafkaService, tmp_path: Path
) -> None:
    """`python -m tests.services` names what it started, and takes it along when it ends, also by kill -9."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap}
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-m", "tests.services"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        said = "".join(iter(shown.stdout.readline, STARTED))
        during = processes_naming(str(tmp_path))
        shown.send_signal(number)
        assert shown.wait(DEADLINE_S) == status

    assert f"export KAFKA_BOOTSTRAP_SERVERS={kafka.bootstrap}\n" in said
    assert "export REDIS_URL=redis://127.0.0.1:" in said
    assert during
    assert not await_gone(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_program_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """A server started in a thread, as fixtures may, goes on when that thread ends."""
    children: list[Guarded] = []
    starter = threading.Thread(target=lambda: children.append(Guarded(["sleep", "60"], tmp_path / "log")))
    starter.start()
    starter.join(DEADLINE_S)
    time.sleep(0.3)

    [child] = children
    alive = child.alive
    child.kill()
    assert alive


def test_a_stubborn_program_is_killed(tmp_path: Path) -> None:
    """A program that ignores SIGTERM is killed after the time it was given."""
    log = tmp_path / "log"
    child = Guarded(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], log)
    while "ready" not in log.read_text():
        time.sleep(0.02)

    child.stop(0.2)

    assert not child.alive


def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    """A server that ends instead of answering fails at once, with its last words."""
    server = Program(["sh", "-c", "echo no memory left; exit 3"], tmp_path)
    with pytest.raises(ServiceFailed, match=r"ended; its log ends:\nno memory left"):
        RedisService(server, "redis://127.0.0.1:1/0").start()


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that runs and does not answer fails at the deadline, and is stopped."""
    monkeypatch.setattr(services, "READY_DEADLINE_S", 0.3)
    server = Program(["sleep", "60"], tmp_path)
    with pytest.raises(ServiceFailed, match="did not answer"):
        RedisService(server, "redis://127.0.0.1:1/0").start()
    assert not server.alive


@pytest.mark.usefixtures("nothing_installed")
def test_missing_programs_are_named_with_their_cure() -> None:
    """Without Java, Maven, Redis or Docker the error says what is missing and how to get it."""
    with pytest.raises(
        programs.ProgramMissing, match=r"Java 17.*, Maven\.\n.*apt-get install default-jre-headless maven"
    ):
        services.new_kafka()
    with pytest.raises(programs.ProgramMissing, match="missing: redis-server"):
        services.new_redis()
    assert "Chromium" in programs.cure()
    assert "SERVICES=none" in programs.cure()


@pytest.mark.usefixtures("nothing_installed")
def test_without_root_what_is_missing_is_said_and_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is not root is told the command instead."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(programs.ProgramMissing, match=r"Java 17.*redis-server.*Chromium"):
        programs.ensure()


@pytest.mark.usefixtures("nothing_installed")
def test_an_old_java_counts_as_missing(tmp_path: Path) -> None:
    """Java 11 is on the PATH, and Kafka 4 needs a later one."""
    put_program(tmp_path, "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    assert programs.java_version() == 11
    assert not programs.java_ready()


@pytest.mark.redis
def test_a_docker_daemon_does_where_the_program_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without redis-server a container serves: run once, killed by name, started again, removed at the end."""
    real = shutil.which("redis-server")
    if real is None:
        pytest.skip("the stand-in for Docker runs redis-server, which is not here")
    calls = tmp_path / "calls"
    put_program(tmp_path, "docker", DOCKER.format(calls=calls, redis=real))
    monkeypatch.setenv("PATH", str(tmp_path))

    with services.running(services.new_redis()) as store:
        store.kill()
        store.restart()

    verbs = [line.split()[0] for line in calls.read_text().splitlines()]
    assert [verb for verb in verbs if verb != "version"] == ["run", "kill", "kill", "start", "rm"]


@pytest.fixture
def fake_maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a Maven on the PATH that writes one jar and counts its calls; return the file of the count."""
    calls = tmp_path / "calls"
    put_program(tmp_path, "mvn", MAVEN.format(calls=calls))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def test_two_runs_at_once_fetch_the_jars_once(fake_maven: Path) -> None:
    """The second run waits for the first one's download and uses it."""
    with ThreadPoolExecutor(2) as pool:
        first, second = [pool.submit(jars.kafka_jars) for _ in range(2)]

    assert first.result(DEADLINE_S) == second.result(DEADLINE_S)
    assert fake_maven.read_text() == "called\n"


@pytest.mark.parametrize("harm", [Path.unlink, lambda jar: jar.write_text("x")], ids=["lost", "cut short"])
def test_a_broken_cache_heals(fake_maven: Path, harm: Callable[[Path], object]) -> None:
    """A jar that is lost or cut short is fetched again."""
    jar = jars.kafka_jars() / "one.jar"
    harm(jar)
    assert not jars.complete(jar.parent)

    assert (jars.kafka_jars() / "one.jar").read_text() == "content\n"
    assert fake_maven.read_text() == "called\n" * 2


@pytest.mark.usefixtures("fake_maven")
def test_a_failed_download_leaves_nothing_that_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When Maven fails every time, the error shows its words, and no folder is left to be taken for the jars."""
    put_program(tmp_path, "mvn", "echo no route to host; exit 1")
    with pytest.raises(jars.JarsMissing, match="no route to host"):
        jars.kafka_jars()
    assert [path.name for path in jars.cache_folder().parent.iterdir()] == [f"kafka-{jars.KAFKA}.lock"]


@pytest.mark.slow
def test_without_services_their_tests_are_skipped_visibly() -> None:
    """With SERVICES=none a test that asks for a service is skipped, and the summary says why."""
    command = [sys.executable, "-m", "pytest", "--no-header", "-q", "-k", "shows_a_page", __file__]
    environment = {**os.environ, "SERVICES": "none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S * 3, check=False)
    assert "SERVICES=none: needs a real" in done.stdout
    assert "1 skipped" in done.stdout


def test_services_is_none_or_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt SERVICES stops the run instead of meaning something."""
    monkeypatch.setenv("SERVICES", "nnone")
    with pytest.raises(ValueError, match="nnone"):
        services.wanted()
