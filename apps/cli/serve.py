"""The commands that serve: `penstock up`, `penstock gateway` and `penstock stage`."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from apps.cli.options import (
    Asr,
    BaseUrl,
    Config,
    Device,
    Draft,
    Engine,
    HealthPort,
    Host,
    Kafka,
    LogLevel,
    Model,
    Port,
    Replicas,
    Sets,
    Speak,
    Standby,
    TopicPrefix,
    Voice,
    given,
)
from apps.cli.running import run, settings_of

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="speech, text, llm, postprocess or speak; the three in the middle chain."),
]


def up(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    model: Model = None,
    draft: Draft = None,
    engine: Engine = None,
    base_url: BaseUrl = None,
    device: Device = None,
    asr: Asr = None,
    speak: Speak = None,
    voice: Voice = None,
    log_level: LogLevel = None,
    sets: Sets = None,
) -> None:
    """Serve everything in this one process: no Kafka and no Redis are needed."""
    settings = settings_of(
        config,
        given(
            sets,
            host=host,
            port=port,
            model=model,
            draft=draft,
            engine=engine,
            base_url=base_url,
            device=device,
            asr=asr,
            speak=speak,
            voice=voice,
            log_level=log_level,
        ),
    )
    from apps.local import serve

    run(serve, settings)


def gateway(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    model: Model = None,
    log_level: LogLevel = None,
    sets: Sets = None,
) -> None:
    """Serve clients: the WebSockets, the page and the health checks. The stages run elsewhere, behind Kafka.

    --model is the stages', whose name it then has for the clients.
    """
    settings = settings_of(
        config,
        given(sets, host=host, port=port, kafka=kafka, topic_prefix=topic_prefix, model=model, log_level=log_level),
    )
    from apps.local import serve_gateway

    run(serve_gateway, settings)


def stage(
    names: Names,
    config: Config = None,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    health_port: HealthPort = None,
    replicas: Replicas = None,
    standby: Standby = None,
    model: Model = None,
    draft: Draft = None,
    engine: Engine = None,
    base_url: BaseUrl = None,
    device: Device = None,
    asr: Asr = None,
    speak: Speak = None,
    voice: Voice = None,
    log_level: LogLevel = None,
    sets: Sets = None,
    supervised: Annotated[int | None, typer.Option("--supervised", hidden=True)] = None,
) -> None:
    """Run one stage against Kafka, or several as one; start as many processes of it as you like.

    With --replicas and --standby, a supervisor starts them and keeps them alive: see `penstock status`.
    """
    settings = settings_of(
        config,
        given(
            sets,
            kafka=kafka,
            topic_prefix=topic_prefix,
            health_port=health_port,
            replicas=replicas,
            standby=standby,
            model=model,
            draft=draft,
            engine=engine,
            base_url=base_url,
            device=device,
            asr=asr,
            speak=speak,
            voice=voice,
            log_level=log_level,
        ),
    )
    from apps.parts import check_names

    checked = check_names(names)
    if supervised is not None:
        from apps.supervisor.child import work_supervised

        run(partial(work_supervised, checked, supervised), settings)
    elif settings.supervisor.replicas or settings.supervisor.standby:
        from apps.supervisor.supervise import supervise

        run(partial(supervise, checked, sys.argv[1:]), settings)
    else:
        from apps.worker import work

        run(partial(work, checked), settings)
