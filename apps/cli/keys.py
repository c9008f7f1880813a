"""`penstock keys`: the API keys that the gateway lets in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from apps.cli.options import Config, Sets, given
from apps.cli.running import settings_of
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from apps.gateway.keys import Entry

keys = typer.Typer(no_args_is_help=True, help="Add, list and revoke the API keys that the gateway lets in.")

File = Annotated[
    Path | None, typer.Option("--file", help="File of the keys.", show_default="the setting gateway.keys_file")
]


@keys.command()
def add(
    tenant: Annotated[str, typer.Argument(help="Whom the key speaks for; a tenant may have several.")],
    note: Annotated[str, typer.Option("--note", help="What it is for, for the list.")] = "",
    file: File = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Make a key and print it, this once: what is kept is a hash. A running gateway takes it within a second or two."""
    path = _file(file, config, sets)
    from apps.gateway.keyfile import add as add_to

    made = add_to(path, tenant, note)
    Console(stderr=True).print(
        f"Key {made.entry.id} for [bold]{made.entry.tenant}[/], kept in {path} as a hash. This is all that will ever "
        "be shown of it:",
        highlight=False,
        soft_wrap=True,
    )
    typer.echo(made.key)


@keys.command("list")
def list_(
    file: File = None,
    config: Config = None,
    sets: Sets = None,
    every: Annotated[bool, typer.Option("--all", help="Those too that are revoked.")] = False,
) -> None:
    """List the keys by their ids: whose they are, since when, and what for."""
    path = _file(file, config, sets)
    from apps.gateway.keys import read

    table = Table("id", "tenant", "since", "revoked", "note", box=None, pad_edge=False)
    for entry in read(path):
        if entry.live or every:
            table.add_row(*_row(entry))
    Console().print(table, highlight=False, markup=False)


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `penstock keys list` shows it.")],
    file: File = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Let nobody in any more with this key. A running gateway closes its connections within a second or two."""
    path = _file(file, config, sets)
    from apps.gateway.keyfile import revoke as revoke_in

    entry = revoke_in(path, name)
    Console().print(f"Key {entry.id} of {entry.tenant} is revoked.", highlight=False, markup=False)


def _file(file: Path | None, config: Path | None, sets: list[str] | None) -> Path:
    """The file that is meant.

    Raises:
        SettingsError: none is.
    """
    path = file or settings_of(config, given(sets)).gateway.keys_file
    if path is None:
        raise SettingsError("gateway.keys_file", "not set; say where the keys are with it, or here with --file PATH")
    return path


def _row(entry: Entry) -> tuple[str, ...]:
    return entry.id, entry.tenant, entry.created, entry.revoked or "", entry.note
