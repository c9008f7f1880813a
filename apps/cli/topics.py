"""`penstock topics`: the route in Kafka, created and compared."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from apps.cli.options import Config, Kafka, Sets, TopicPrefix, given
from apps.cli.running import quiet, settings_of

topics = typer.Typer(no_args_is_help=True, help="Create or describe the route's topics in Kafka.")

DIFFERS = 1

Partitions = Annotated[
    int | None,
    typer.Option("--partitions", help="Partitions of each topic that does not say so itself.", show_default="8"),
]
Replication = Annotated[
    int | None, typer.Option("--replication", help="Brokers that keep a copy of each.", show_default="1")
]


@topics.command()
def create(
    config: Config = None,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    replication: Replication = None,
    sets: Sets = None,
) -> None:
    """Create what is missing, and say what is not as it should be. Changes nothing that exists."""
    settings = settings_of(
        config, given(sets, kafka=kafka, topic_prefix=topic_prefix, partitions=partitions, replication=replication)
    )
    quiet()
    from pipeline.kafka import create_topics
    from pipeline.topics import ROUTE

    chosen = settings.topics
    made = asyncio.run(
        create_topics(settings.kafka, ROUTE, partitions=chosen.partitions, replication=chosen.replication)
    )
    table = Table("topic", "partitions", "", box=None, pad_edge=False)
    for one in made:
        table.add_row(one.topic, str(one.partitions), "; ".join((one.outcome, *one.differs)))
    Console().print(table, highlight=False)


@topics.command()
def describe(
    config: Config = None,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    partitions: Partitions = None,
    sets: Sets = None,
) -> None:
    """Say how the topics are, and in what they differ from what they should be; status 1 where they do."""
    settings = settings_of(config, given(sets, kafka=kafka, topic_prefix=topic_prefix, partitions=partitions))
    quiet()
    from pipeline.kafka import describe_topics
    from pipeline.topics import ROUTE

    found = asyncio.run(describe_topics(settings.kafka, ROUTE, partitions=partitions and settings.topics.partitions))
    table = Table("topic", "partitions", "copies", "kept for", "", box=None, pad_edge=False)
    for one in found:
        if one.exists:
            hours = int(one.settings.get("retention.ms", 0)) / 3_600_000
            table.add_row(one.topic, str(one.partitions), str(one.replication), f"{hours:g} h", "; ".join(one.differs))
        else:
            table.add_row(one.topic, "", "", "", "missing")
    Console().print(table, highlight=False)
    raise typer.Exit(DIFFERS if any(one.differs or not one.exists for one in found) else 0)
