"""The compose file: whole by itself, and its very commands hold a chat over a real broker."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from apps.gateway.serve import check_reach
from apps.settings import load_settings
from tests.apps.clients import session
from tests.apps.processes import Penstock, started
from tests.servers import unused_port
from tests.services import KafkaService

ROOT = Path(__file__).parents[2]
DEADLINE_S = 150
KEYS = {
    "image",
    "build",
    "init",
    "restart",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "ports",
    "volumes",
    "stop_grace_period",
}
CHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period", "start_interval"}
OURS = ("gateway", "speech", "text", "llm", "postprocess", "speak")
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Give the compose file as it is without any variable set."""
    text = VARIABLE.sub(lambda found: found[2], (ROOT / "compose.yaml").read_text())
    content: dict[str, Any] = yaml.safe_load(text)
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give its services."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def composes() -> bool:
    """Tell whether there is a client that reads compose files."""
    if shutil.which("docker") is None:
        return False
    return (
        subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=20, check=False).returncode == 0
    )


@pytest.mark.skipif(not composes(), reason="docker compose is not installed; the checks below stand in for it")
def test_the_client_accepts_the_file() -> None:
    """`docker compose config` finds nothing wrong."""
    subprocess.run(["docker", "compose", "config", "--quiet"], cwd=ROOT, timeout=60, check=True)


def test_every_part_is_a_service_of_its_own(services: dict[str, dict[str, Any]]) -> None:
    """Kafka, Redis, the gateway and each stage run apart."""
    assert set(services) == {"kafka", "redis", "topics", *OURS}


def test_only_what_compose_knows_is_written(services: dict[str, dict[str, Any]]) -> None:
    """No service has a key, or a health check a detail, that compose would refuse."""
    for name, service in services.items():
        assert set(service) <= KEYS, name
        assert set(service.get("healthcheck", {})) <= CHECK_KEYS, name
        assert "image" in service, name


def test_every_lasting_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    """Compose can tell of each service whether it is well; only the one that ends has no check."""
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"topics"}


def test_each_waits_for_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    """The topics wait for a healthy Kafka, and everything of ours for the topics."""
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in OURS:
        assert services[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}


def test_stages_can_be_scaled(services: dict[str, dict[str, Any]]) -> None:
    """A stage has neither a fixed name nor a fixed port on the host, so there can be several of it."""
    for name in ("text", "llm", "postprocess"):
        assert "ports" not in services[name]
        assert "container_name" not in services[name]


def test_gateways_can_be_scaled(services: dict[str, dict[str, Any]]) -> None:
    """Several gateways share a range of ports of the host, each with one of its own."""
    (port,) = services["gateway"]["ports"]
    first, last = re.fullmatch(r"127\.0\.0\.1:(\d+)-(\d+):8080", port).groups()  # type: ignore[union-attr]
    assert (first, int(last) - int(first)) == ("8080", 9)


def test_the_gateway_may_listen_within_its_container(services: dict[str, dict[str, Any]]) -> None:
    """The command's address is one that the settings allow."""
    given = {key: str(value) for key, value in services["gateway"]["environment"].items()}
    settings = load_settings(given, options=[("gateway.host", services["gateway"]["command"][-1], "--host")]).settings
    check_reach(settings.gateway)


def test_a_port_of_the_host_is_open_to_the_host_alone(services: dict[str, dict[str, Any]]) -> None:
    """Nothing is published to other machines unless one says so."""
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_a_stop_is_given_the_time_that_a_drain_takes(services: dict[str, dict[str, Any]]) -> None:
    """Compose waits longer before it kills than a stage works on what it has in hand."""
    for name in OURS:
        settings = load_settings({key: str(value) for key, value in services[name]["environment"].items()}).settings
        assert int(services[name]["stop_grace_period"].rstrip("s")) > settings.stage.drain_s


def test_every_named_volume_is_declared(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    """A volume that a service mounts stands in the list of volumes."""
    mounted = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert mounted == set(compose["volumes"])


def test_the_image_is_ours_to_build() -> None:
    """The image runs as an ordinary user, and gets its libraries before our code, so that a change of it is quick."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert next(line for line in lines if line.startswith("USER")) == "USER penstock"
    requirements = next(n for n, line in enumerate(lines) if "--requirement" in line)
    assert requirements < lines.index("COPY pipeline pipeline")


def locally(service: dict[str, Any], broker: str, **more: str) -> dict[str, str]:
    """What the service's environment is where everything runs on this machine."""
    given = {name: str(value) for name, value in service["environment"].items()}
    return {**given, "KAFKA_BOOTSTRAP_SERVERS": broker, "PENSTOCK_HEALTH_HOST": "127.0.0.1", **more}


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_very_same_commands_hold_a_chat(
    services: dict[str, dict[str, Any]], kafka: KafkaService, small_model: Path, tmp_path: Path
) -> None:
    """Started as processes in the file's order against a real broker, the commands answer, and stop well."""
    own = {
        "PENSTOCK_KAFKA_TOPIC_PREFIX": f"compose-{unused_port()}-",
        "PENSTOCK_MODEL_NAME": str(small_model),
        "PENSTOCK_MODEL_THREADS": "1",
    }

    def start(name: str) -> Penstock:
        port = unused_port()
        ports = {"PENSTOCK_HEALTH_PORT": str(port), "PENSTOCK_GATEWAY_PORT": str(port)}
        environment = locally(services[name], kafka.bootstrap, **own, **ports)
        return stack.enter_context(
            started(*services[name]["command"], folder=tmp_path, port=port, environment=environment)
        )

    with ExitStack() as stack:
        async with asyncio.timeout(DEADLINE_S):
            topics = start("topics")
            assert await topics.ended() == 0, topics.log
            running = [start(name) for name in OURS]
            for process in running:
                await process.ready()
            async with session(running[0].url) as client:
                await client.say("How much is a tent?", max_output_tokens=16)
                assert await client.answer()
        for process in running:
            assert await asyncio.to_thread(process.stop) == 0, process.log
