"""`penstock chaos`: break a deployment of one's own on purpose, and tell what its clients noticed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from apps.cli.running import quiet

BROKEN = 1


def chaos(
    seed: Annotated[int, typer.Option("--seed", help="What is asked and broken, and when, follows from it.")] = 1,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="How long things break.")] = 1.0,
    clients: Annotated[int, typer.Option("--clients", min=1, help="Clients that ask all the time.")] = 8,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="Different conversations they have.")] = 8,
    faults: Annotated[
        str,
        typer.Option(
            "--faults",
            metavar="KIND,...",
            help="Of kill, pause, freeze, drain, rebalance, broker, gateway, leave.",
            show_default="all",
        ),
    ] = "",
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds from one to the next, on average.")] = 10.0,
    compare: Annotated[
        int, typer.Option("--compare", min=0, help="Kill so many LLM workers without supervisor, too, to compare.")
    ] = 0,
    kafka: Annotated[
        str | None,
        typer.Option("--kafka", metavar="HOST:PORT", help="A broker, which is left alone.", show_default="its own"),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="As with `penstock up`; instant makes tokens up.", show_default="demo")
    ] = "",
    pace: Annotated[float, typer.Option("--pace", min=0.0, help="Seconds that an answer rests after a token.")] = 0.08,
    voices: Annotated[
        int, typer.Option("--voices", min=0, help="Clients that speak and are spoken to, all the time.")
    ] = 0,
    asr: Annotated[str, typer.Option("--asr", help="As with `penstock up`.", show_default="demo")] = "",
    json: Annotated[Path | None, typer.Option("--json", help="Write the report to this file, too.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="And as a page with the timeline to this.")] = None,
    logs: Annotated[
        Path | None, typer.Option("--logs", help="Folder for all programs' output.", show_default="a new one")
    ] = None,
) -> None:
    """Break a deployment on purpose: workers, broker and gateways die, hang, come and go while clients are answered.

    Starts a Kafka, two gateways and two workers of each stage with a standby, lets clients ask without faults and then
    with them, and compares. Status 1 if something was lost, told twice, or answered differently.
    """
    from apps.chaos.plan import Plan, kinds_of
    from apps.chaos.report import folder_for, tell
    from apps.chaos.run import run
    from apps.chaos.told import telling

    plan = Plan(
        seed=seed,
        minutes=minutes,
        clients=clients,
        scripts=sessions,
        kinds=kinds_of(faults),
        every=every,
        model=model,
        pace=pace,
        comparisons=compare,
        voices=voices,
        recordings=min(voices, Plan.recordings),
        asr=asr,
    )
    quiet()
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends all programs, as Ctrl-C does
    place = folder_for(logs)
    console.print(f"logs of all programs: {place}", style="dim", highlight=False)
    with telling(console) as told:
        outcome = asyncio.run(run(plan, place, kafka, told))
    kept = tell(outcome, console, json=json, html=html)
    raise typer.Exit(0 if kept else BROKEN)
