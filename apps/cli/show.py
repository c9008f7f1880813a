"""`penstock settings`: every setting, its value here, and where that came from."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from apps.cli.options import Config, Sets, given


def settings(
    config: Config = None,
    sets: Sets = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not at their default.")] = False,
) -> None:
    """List every setting: its value here, where that came from, and how the environment calls it."""
    from apps.settings import PREFIX, Settings, load_settings
    from pipeline.settings import leaves, shown, variable

    loaded = load_settings(os.environ, file=config, options=given(sets, {}))
    table = Table("setting", "value", "from", "in the environment", box=None, pad_edge=False)
    for name, leaf in leaves(Settings).items():
        origin = loaded.origins.get(name, "")
        if changed and not origin:
            continue
        value: object = loaded.settings
        for part in name.split("."):
            value = getattr(value, part)
        table.add_row(name, shown(leaf, value), origin, variable(name, PREFIX))
    Console(width=_width(), soft_wrap=True).print(table, highlight=False, markup=False)


def _width() -> int | None:
    """A terminal's own width; wide enough for a line each where the output goes into a file or a pipe."""
    return None if os.isatty(1) else 200
