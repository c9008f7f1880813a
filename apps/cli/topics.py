"""`penstock topics`: the route in Kafka."""

from __future__ import annotations

import typer

topics = typer.Typer(no_args_is_help=True, help="Create or describe the route's topics in Kafka.")
