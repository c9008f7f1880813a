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
    """List every setting: its value here, where that came from, and what it is."""
    from apps.settings import PREFIX, Settings, load_settings
    from pipeline.settings import described, leaves, shown

    loaded = load_settings(os.environ, file=config, options=given(sets))
    texts = described(Settings)
    table = Table("setting", "value", "what it is", box=None, pad_edge=False)
    for name, leaf in leaves(Settings).items():
        origin = loaded.origins.get(name, "")
        if changed and not origin:
            continue
        value: object = loaded.settings
        for part in name.split("."):
            value = getattr(value, part)
        table.add_row(name, shown(leaf, value) + (f"\n({origin})" if origin else ""), texts.get(name, ""))
    console = Console(width=_width())
    console.print(table, highlight=False, markup=False)
    console.print(f"\nIn the environment, gateway.port is {PREFIX}GATEWAY_PORT; in TOML, port below \\[gateway].")


def _width() -> int | None:
    """A terminal's own width; wide enough for a line each where the output goes into a file or a pipe."""
    return None if os.isatty(1) else 200
