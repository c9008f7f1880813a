"""The options that several commands share, and how a command's options become settings.

An option is a short name for a setting: its default is None, so that what is not given is left to the environment,
the file and the setting's own default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import SettingsError

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file with settings.", show_default="./penstock.toml, if there is one"),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; `penstock settings` lists them. Repeatable."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="Hugging Face name or folder of the chat model.", show_default="the bundled demo model"
    ),
]
Draft = Annotated[
    str | None,
    typer.Option("--draft", help="The same for a draft model, which guesses ahead; 'none' for none."),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="torch, or openai: a server that speaks OpenAI's API.", show_default="torch"),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="That server, http://HOST:PORT/v1; --model is its tokenizer then."),
]
Asr = Annotated[
    str | None,
    typer.Option(
        "--asr",
        metavar="MODEL",
        help="Whisper model that listens: tiny, base, small, ... or a folder.",
        show_default="the bundled demo model",
    ),
]
Speak = Annotated[
    str | None,
    typer.Option(
        "--speak", metavar="ENGINE", help="What speaks: espeak, piper, openai or none.", show_default="espeak"
    ),
]
Voice = Annotated[
    str | None,
    typer.Option(
        "--voice", help="Who speaks: en-us, de+f3, ...; a Piper voice's .onnx file.", show_default="the engine's own"
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", show_default="auto")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on.", show_default="8080")]
Kafka = Annotated[
    str | None,
    typer.Option("--kafka", metavar="HOST:PORT,...", help="Kafka's addresses.", show_default="localhost:9092"),
]
TopicPrefix = Annotated[
    str | None, typer.Option("--topic-prefix", help="What the names of all topics begin with.", show_default="none")
]
HealthPort = Annotated[
    int | None, typer.Option("--health-port", help="Port of /livez, /readyz and /metrics.", show_default="none")
]
Replicas = Annotated[
    int | None,
    typer.Option("--replicas", help="Keep so many workers alive, each a process.", show_default="no supervisor"),
]
Standby = Annotated[
    int | None,
    typer.Option("--standby", help="And so many more, loaded, to take over from a dead one at once.", show_default="0"),
]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")]

SETTINGS = {
    "model": "model.name",
    "draft": "model.draft",
    "engine": "model.engine",
    "base_url": "model.base_url",
    "device": "model.device",
    "asr": "asr.model",
    "speak": "speak.engine",
    "voice": "speak.voice",
    "host": "gateway.host",
    "port": "gateway.port",
    "kafka": "kafka.bootstrap",
    "topic_prefix": "kafka.topic_prefix",
    "partitions": "topics.partitions",
    "replication": "topics.replication",
    "replicas": "supervisor.replicas",
    "standby": "supervisor.standby",
    "health_port": "health.port",
    "log_level": "log.level",
    "url": "chat.url",
    "session": "chat.session",
    "key": "chat.key",
}
"""Which setting an option stands for."""


def given(sets: list[str] | None, **options: Any) -> list[tuple[str, Any, str]]:
    """What a command line sets, as (name, value, flag); `options` by their names.

    Raises:
        SettingsError: a `--set` without an equals sign.
    """
    triples = [(SETTINGS[name], value, f"--{name.replace('_', '-')}") for name, value in options.items()]
    for one in sets or ():
        name, equals, value = one.partition("=")
        if not equals:
            raise SettingsError(one, "--set wants NAME=VALUE")
        triples.append((name.strip(), value, f"--set {name.strip()}"))
    return triples


def passed_on(config: Path | None, triples: list[tuple[str, Any, str]]) -> list[str]:
    """The same settings as options for another of our commands; see `given`."""
    sets = [part for name, value, _ in triples if value is not None for part in ("--set", f"{name}={value}")]
    return ["--config", str(config), *sets] if config else sets
