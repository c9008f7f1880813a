"""All settings of all programs, as one frozen tree, and where they are read from.

Each program is given the whole tree and looks at its part. A well-known name of the field (`KAFKA_BOOTSTRAP_SERVERS`)
is honoured beside ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from apps.gateway.settings import GatewaySettings
from pipeline.kafka import KafkaSettings
from pipeline.settings import Loaded, from_environment, from_options, from_toml, load

PREFIX = "PENSTOCK_"
CONFIG = "PENSTOCK_CONFIG"
DEBUG = "PENSTOCK_DEBUG"
DEFAULT_FILE = Path("penstock.toml")
ALIASES = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.bootstrap"}

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class LogSettings:
    """What is written on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is told."""
    format: Literal["auto", "text", "json"] = "auto"
    """`auto` is text on a terminal and JSON elsewhere."""


@dataclass(frozen=True)
class HealthSettings:
    """The small HTTP server beside a stage: `/livez`, `/readyz`, `/metrics`."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 9100
    """Port to listen on; 0 for no such server."""


@dataclass(frozen=True)
class StageSettings:
    """How much a stage takes in hand."""

    concurrency: Positive = 256
    """Turns that a process works on at once."""
    span: Positive = 1000
    """Records of a partition between the oldest unfinished one and the newest started."""
    drain_s: Seconds = 30.0
    """Seconds that the work in hand is given to end when the program is told to stop."""
    wait_s: Seconds = 60.0
    """Seconds that a start waits for Kafka before it gives up."""


@dataclass(frozen=True)
class ChatSettings:
    """The chat in a terminal."""

    url: str = "ws://127.0.0.1:8080"
    """Where the gateway is."""
    key: str = ""
    """API key, where the gateway wants one."""
    model: str = ""
    """Name of the model to ask for; none means the gateway's own."""
    session: str = ""
    """A session to go on with."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    stage: StageSettings = field(default_factory=StageSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    log: LogSettings = field(default_factory=LogSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)


def load_settings(
    environ: Mapping[str, str], *, file: Path | None = None, options: Iterable[tuple[str, Any, str]] = ()
) -> Loaded[Settings]:
    """Read the file (given, named by the environment, or `./penstock.toml`), the environment and the options.

    Raises:
        SettingsError: something is unknown or cannot be; it names itself and where it came from.
    """
    path = file or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    return load(
        Settings,
        from_toml(Settings, path) if path else {},
        from_environment(Settings, environ, prefix=PREFIX, aliases=ALIASES, others=(CONFIG, DEBUG)),
        from_options(Settings, options),
    )
