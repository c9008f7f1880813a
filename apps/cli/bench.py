"""`penstock bench`: programs that measure, and state what they measured."""

from __future__ import annotations

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure: each tells machine, n and percentiles.")
