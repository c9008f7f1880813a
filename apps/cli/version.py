"""`penstock version`: what runs here, told from the packages' metadata without importing them."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

LIBRARIES = ("torch", "transformers", "aiokafka", "uvicorn", "starlette", "websockets", "msgspec", "redis")


def version(
    short: Annotated[bool, typer.Option("--short", help="Only the number.")] = False,
) -> None:
    """Tell the versions of Penstock, of Python and of the libraries that matter."""
    ours = found("penstock")
    if short:
        typer.echo(ours)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, number in (
        ("penstock", ours),
        ("python", platform.python_version()),
        *((n, found(n)) for n in LIBRARIES),
    ):
        table.add_row(name, number)
    Console().print(table, highlight=False)


def found(library: str) -> str:
    """The version of an installed library."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"
