"""Start a program: read its settings, set its logging up, and stop it on Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from apps.settings import Settings

INTERRUPTED = 130

Program = Callable[["Settings", asyncio.Event], Awaitable[None]]
"""Runs until the event is set, and then finishes what is in hand."""


def settings_of(config: Path | None, options: Iterable[tuple[str, Any, str]]) -> Settings:
    """The settings of this command.

    Raises:
        SettingsError: one is wrong.
    """
    from apps.settings import load_settings

    return load_settings(os.environ, file=config, options=options).settings


def run(program: Program, settings: Settings) -> None:
    """Run `program` until it ends or a signal stops it; a second signal ends it at once."""
    from pipeline.telemetry import configure_logging

    style = settings.log.format
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    configure_logging(settings.log.level, style)
    asyncio.run(_until_signal(program, settings))


async def _until_signal(program: Program, settings: Settings) -> None:
    stop = asyncio.Event()
    console = Console(stderr=True)

    def asked() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        console.print("stopping: what is in hand is finished first; once more to stop at once", style="dim")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    await program(settings, stop)


def quiet() -> None:
    """Log nothing but warnings: what a command measures is told at its end."""
    from pipeline.telemetry import configure_logging

    configure_logging("warning")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it complains of topics that are a moment old
