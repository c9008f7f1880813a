"""`penstock chat`: the chat in a terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from apps.cli.options import Config, Sets, given
from apps.cli.running import settings_of


def chat(
    config: Config = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Where the gateway is.", show_default="ws://127.0.0.1:8080")
    ] = None,
    session: Annotated[str | None, typer.Option("--session", help="Go on with a session that was left.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="API key, where the gateway wants one.")] = None,
    once: Annotated[
        str | None, typer.Option("--once", metavar="TEXT", help="Send this alone and leave; - is all of the input.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Chat in the terminal. In a pipe, each line is a turn and nothing but the answers is written."""
    chosen = settings_of(config, given(sets, url=url, session=session, key=key)).chat
    from apps.chat.line import Line
    from apps.chat.terminal import talk

    line = Line(chosen.url, key=chosen.key.reveal(), model=chosen.model, session=chosen.session)
    completed = asyncio.run(talk(line, once=sys.stdin.read().strip() if once == "-" else once))
    raise typer.Exit(0 if completed else 1)
