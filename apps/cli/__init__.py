"""The `penstock` command. Each command imports what it needs when it runs, so that `--help` is there at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from apps.cli.bench import bench
from apps.cli.chat import chat
from apps.cli.serve import gateway, stage, up
from apps.cli.show import settings
from apps.cli.topics import topics
from apps.cli.version import version
from pipeline.errors import PenstockError, SettingsError

WRONG_SETTING, FAILED = 2, 1

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
app.command()(settings)
app.command()(version)
app.add_typer(topics, name="topics")
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


def main() -> None:
    """Run the command line: an error raised on purpose is one line, and its status 2 for settings, else 1."""
    try:
        app()
    except (PenstockError, BaseExceptionGroup) as error:
        known = _known(error)
        if known is None or os.environ.get("PENSTOCK_DEBUG"):
            raise
        Console(stderr=True).print(
            f"[bold red]penstock:[/] [red]{_escaped(str(known))}[/]", highlight=False, soft_wrap=True
        )
        sys.exit(WRONG_SETTING if isinstance(known, SettingsError) else FAILED)


def _known(error: BaseException) -> PenstockError | None:
    """The first error raised on purpose in a group, or None if there is any other."""
    if isinstance(error, BaseExceptionGroup):
        inner = [_known(one) for one in error.exceptions]
        return None if None in inner else inner[0]
    return error if isinstance(error, PenstockError) else None


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
