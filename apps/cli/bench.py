"""`penstock bench`: programs that measure, and state what they measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Asr, Config, Draft, Kafka, Model, Sets, given, passed_on
from apps.cli.running import quiet, settings_of
from pipeline.errors import SettingsError

bench = typer.Typer(no_args_is_help=True, help="Measure: each tells machine, n and percentiles.")

Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file, too.")]
Broker = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Measure over this Kafka, too.", show_default="none")
]


@bench.command()
def overhead(
    kafka: Broker = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="instant or model; repeatable.", show_default="both")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Answers each way.")] = 100,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens in an answer, at most.")] = 32,
    interval: Annotated[float, typer.Option(min=0.0, help="Seconds from one start to the next.")] = 0.25,
    json: Json = None,
    config: Config = None,
    model: Model = None,
    draft: Draft = None,
    sets: Sets = None,
) -> None:
    """What the pipeline adds to an engine: first token and token to token, whole pipe against engine alone."""
    from apps.bench.overhead import Plan, kinds_of
    from apps.bench.overhead import overhead as measure

    kinds = kinds_of(engine or ["instant", "model"])
    settings = settings_of(config, given(sets, model=model, draft=draft))
    quiet()
    asyncio.run(measure(settings, Plan(n, tokens, interval), kafka=kafka, kinds=kinds, path=json))


@bench.command()
def sessions(
    count: Annotated[int, typer.Option(min=1, help="Sessions at once.")] = 200,
    turns: Annotated[int, typer.Option(min=1, help="Questions of each session in a round.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens in an answer.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, alternating with the bare server's.")] = 5,
    json: Json = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Many sessions at once over one gateway, beside a bare websockets server in the same run."""
    from apps.bench.sessions import Load
    from apps.bench.sessions import sessions as measure

    settings = settings_of(config, given(sets))
    quiet()
    asyncio.run(measure(settings, Load(count, turns, tokens, rounds), path=json))


@bench.command()
def startup(
    n: Annotated[int, typer.Option("-n", min=1, help="Starts.")] = 3,
    json: Json = None,
    model: Model = None,
    draft: Draft = None,
) -> None:
    """From `penstock up` to the first token of the first chat, each time in a new process."""
    from apps.bench.startup import startup as measure

    quiet()
    options = [*(("--model", model) if model else ()), *(("--draft", draft) if draft else ())]
    asyncio.run(measure(n, options, path=json))


@bench.command()
def fairness(
    kafka: Broker = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Turns of the quiet tenant in a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds without the flood, and as many with it.")] = 3,
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds from one quiet turn to the next.")] = 0.5,
    flood: Annotated[int, typer.Option(min=1, help="Turns that the flooding tenant keeps under way.")] = 300,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens in an answer, at most.")] = 64,
    json: Json = None,
    config: Config = None,
    model: Model = None,
    draft: Draft = None,
    sets: Sets = None,
) -> None:
    """What a flooding tenant costs a quiet one: first tokens with and without the flood."""
    from apps.bench.fairness import Plan
    from apps.bench.fairness import fairness as measure

    settings = settings_of(config, given(sets, model=model, draft=draft, kafka=kafka))
    quiet()
    plan = Plan(n, rounds, interval, flood, tokens)
    options = passed_on(config, given(sets, model=model, draft=draft))
    asyncio.run(measure(options, plan, kafka=settings.kafka if kafka else None, path=json))


@bench.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 10.0,
    times: Annotated[float, typer.Option(min=0.1, help="How many times what can be answered.")] = 10.0,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions at once.")] = 300,
    unread: Annotated[int, typer.Option(min=0, help="Clients besides that ask and never read.")] = 20,
    json: Json = None,
    config: Config = None,
    model: Model = None,
    draft: Draft = None,
    sets: Sets = None,
) -> None:
    """Many times what can be answered, for minutes; fails if a refusal is untyped, memory grows or anything is left."""
    from apps.bench.soak import Plan
    from apps.bench.soak import soak as measure

    options = given(sets, model=model, draft=draft)
    settings_of(config, options)
    quiet()
    plan = Plan(minutes, times, sessions, unread)
    asyncio.run(measure(passed_on(config, options), plan, path=json))


@bench.command()
def cancel(
    kafka: Broker = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Turns of each kind.")] = 20,
    json: Json = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """How long the model goes on with an answer that nobody wants any more, and what it chooses for nothing."""
    from apps.bench.cancel import Plan
    from apps.bench.cancel import cancel as measure

    settings = settings_of(config, given(sets, kafka=kafka))
    quiet()
    options = passed_on(config, given(sets))
    asyncio.run(measure(options, Plan(n), kafka=settings.kafka if kafka else None, path=json))


@bench.command()
def llm(
    streams: Annotated[
        list[int] | None, typer.Option("--streams", min=1, help="At once; repeatable.", show_default="1, 4, 16, 64")
    ] = None,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", help="demo or large; repeatable.", show_default="both")
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", help="transformers or llama.cpp; repeatable.", show_default="both")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in alternating order.")] = 3,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens in an answer.")] = 32,
    threads: Annotated[
        int, typer.Option(min=0, help="Of each contestant.", show_default="1 for demo, all for large")
    ] = 0,
    dtype: Annotated[str, typer.Option(help="bfloat16, float32 or int8.")] = "bfloat16",
    json: Json = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the speeds into this file.")] = None,
) -> None:
    """Our engine beside transformers and llama.cpp, on the same weights and threads, in one run."""
    from apps.bench.llm import DTYPES, PAIRS, PEERS, WIDTHS, Plan, chosen
    from apps.bench.llm import llm as measure

    (precision,) = chosen([dtype], DTYPES, "--dtype")
    widths = tuple(dict.fromkeys(streams)) if streams else WIDTHS
    pairs, peers = chosen(pair, PAIRS, "--pair"), chosen(peer, PEERS, "--peer")
    quiet()
    measure(Plan(widths, rounds, tokens, threads, precision, pairs, peers), path=json, svg=svg)


@bench.command()
def voice(
    clips: Annotated[int, typer.Option("--clips", min=1, help="Clips, one by one.")] = 32,
    exchanges: Annotated[int, typer.Option("--exchanges", min=0, help="Spoken exchanges, each interrupted.")] = 20,
    each: Annotated[int, typer.Option("--each", min=1, help="Clips of each session of the curve, at least.")] = 2,
    fewest: Annotated[int, typer.Option("--fewest", min=1, help="Clips at each width of the curve, at least.")] = 20,
    sessions: Annotated[
        list[int] | None,
        typer.Option(
            "--sessions",
            min=0,
            help="Widths of the curve: sessions at once; repeatable; 0 is no curve.",
            show_default="1, 4, 8, 16, 24, 32, 48, 64, ... until both budgets are broken",
        ),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="After so many, no wider one is tried.")] = 8.0,
    unseen: Annotated[bool, typer.Option("--unseen", help="Voices and accents that were not trained on.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Recordings, each with a .txt beside it, in place of the demo's.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Whether to measure others beside ours.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Of each that transcribes.")] = 1,
    json: Json = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the curve into this file.")] = None,
    config: Config = None,
    asr: Asr = None,
    model: Model = None,
    sets: Sets = None,
) -> None:
    """Streaming transcription and spoken replies in real time, beside a re-transcribing loop and whisperlivekit.

    The curve's budgets, at p95: the final 300 ms after the configured silence, the first audio 1,000 ms after the
    speech (that silence included); it ends by itself where both are broken. The aims are medians of one session.

    About 18 minutes on two cores. A quick look, in two: --clips 3 --exchanges 2 --fewest 4 --sessions 1 --sessions 2
    """
    try:
        from apps.bench.voice import Plan
        from apps.bench.voice import voice as measure
        from apps.bench.voice_curve import WIDTHS, Load
    except ModuleNotFoundError as error:
        raise SettingsError("bench voice", f"{error.name} is missing: pip install 'penstock[bench-voice]'") from error

    options = [*given(sets, asr=asr, model=model), ("asr.threads", threads, "--threads")]
    chosen = settings_of(config, options)
    quiet()
    widths = tuple(sorted({*sessions} - {0})) if sessions else WIDTHS
    plan = Plan(clips, exchanges, Load(each, fewest, minutes), widths, unseen, folder, peers, threads)
    measure(passed_on(config, options), chosen.asr, plan, path=json, svg=svg)


@bench.command()
def bus(
    kafka: Kafka = None,
    keys: Annotated[
        list[int] | None, typer.Option("--keys", help="Concurrent keys; repeatable.", show_default="1, 8, 64, 512")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each system, in alternating order.")] = 5,
    messages: Annotated[int, typer.Option(min=1, help="Messages in a round's backlog.")] = 20_000,
    json: Json = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """One stage between two topics: ours, bare aiokafka and FastStream, in one run."""
    from apps.bench.bus import Plan, run

    settings = settings_of(config, given(sets, kafka=kafka))
    quiet()
    plan = Plan(rounds=rounds, messages=messages)
    run(settings.kafka, plan._replace(keys=tuple(keys)) if keys else plan, path=json)
