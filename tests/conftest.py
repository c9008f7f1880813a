"""Fixtures that every test may ask for: real services, the browser, a port.

Whoever asks for a service is marked for it (`pytest -m 'not kafka'` leaves those out), and skipped, visibly, with
`SERVICES=none`. The shared services are for tests with topics and keys of their own; who kills, asks for an own one.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import programs, servers, services
from tests.room import entered
from tests.services import KafkaService, RedisService

# Before torch is there, which reads it once: tiny products are slower with more threads, and others run beside us.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing on a shared machine; each test has its own time limit.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

MARKER_OF = {
    "kafka": "kafka",
    "own_kafka": "kafka",
    "redis_url": "redis",
    "own_redis": "redis",
    "chromium": "browser",
}


def pytest_report_header() -> str:
    """Tell what the tests stand on."""
    if not services.wanted():
        return "services: none (SERVICES=none): tests that need Kafka, Redis or Chromium are skipped"
    kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "our own")
    redis = os.environ.get("REDIS_URL", "our own")
    return f"services: Kafka {kafka}, Redis {redis}, Chromium {programs.chromium_path() or 'missing'}"


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the services that it asks for, and skip those which shall not be there."""
    wanted = services.wanted()
    for item in items:
        needed = {MARKER_OF[name] for name in getattr(item, "fixturenames", ()) if name in MARKER_OF}
        for marker in sorted(needed):
            item.add_marker(marker)
        if not wanted and any(item.get_closest_marker(marker) for marker in set(MARKER_OF.values())):
            item.add_marker(pytest.mark.skip(reason="SERVICES=none: needs a real Kafka, Redis or Chromium"))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the test's time limit: waiting for others is not its time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where tests run in several processes, have one that is marked `alone` run with none beside it."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    own: str = item.config.option.basetemp  # xdist gives each worker a folder in one of the run's
    with entered(Path(own).parent / "room", alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaService]:
    """Give the broker that all tests share, never to be killed."""
    with services.kafka() as broker:
        yield broker


@pytest.fixture
def own_kafka() -> Iterator[KafkaService]:
    """Give a fresh broker to this test alone, which may `kill()` and `restart()` it."""
    with services.running(services.new_kafka()) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Give the address of the Redis that all tests share."""
    with services.redis() as store:
        yield store.url


@pytest.fixture
def own_redis() -> Iterator[RedisService]:
    """Give a fresh Redis to this test alone, which may `kill()` and `restart()` it."""
    with services.running(services.new_redis()) as store:
        yield store


@pytest.fixture(scope="session")
def chromium() -> str:
    """Give the path of the browser, for Playwright's `executable_path`."""
    path = programs.chromium_path()
    if path is None:
        pytest.fail(programs.cure("chromium"), pytrace=False)
    return path


@pytest.fixture
def unused_port() -> int:
    """Give a port that nobody listens on."""
    return servers.unused_port()
