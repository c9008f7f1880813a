"""All commands of `penstock`. Each imports what it needs when it runs, so that `--help` is there at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from apps.cli.bench import bench
from apps.cli.chaos import chaos
from apps.cli.chat import chat
from apps.cli.dead_letters import dead_letters
from apps.cli.generate import generate
from apps.cli.keys import keys
from apps.cli.serve import gateway, stage, up
from apps.cli.show import settings
from apps.cli.status import status
from apps.cli.topics import topics
from apps.cli.version import version
from apps.cli.voice import talk, transcribe

app = typer.Typer(
    name="penstock",
    help="A real-time AI streaming pipeline: WebSockets in, Kafka-connected stages, tokens back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up)
app.command()(gateway)
app.command()(stage)
app.command()(chat)
app.command()(transcribe)
app.command()(talk)
app.command()(generate)
app.command()(status)
app.command()(chaos)
app.command()(settings)
app.command()(version)
app.add_typer(topics, name="topics")
app.add_typer(keys, name="keys")
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(bench, name="bench")


@app.callback()
def everywhere(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="PENSTOCK_DEBUG", help="Show where in the program an error arose.")
    ] = False,
) -> None:
    """Every setting can also stand in ./penstock.toml or in the environment: see `penstock settings`."""
    if debug:
        os.environ["PENSTOCK_DEBUG"] = "1"
