"""`penstock generate`: one prompt from the shell, answered in this process."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.options import BaseUrl, Config, Device, Draft, Engine, Model, Sets, given
from apps.cli.running import quiet, settings_of
from pipeline.errors import SettingsError
from pipeline.messages import Grammar, Sampling

if TYPE_CHECKING:
    from apps.generate import Answer
    from apps.settings import ModelSettings

HOW = "How tokens are chosen"

PIPE_GONE = 141
"""What a shell shows of a program that SIGPIPE ended."""


def generate(
    prompt: Annotated[
        str, typer.Argument(help="What the user says; - is all of the input.", show_default="the input")
    ] = "-",
    config: Config = None,
    model: Model = None,
    draft: Draft = None,
    engine: Engine = None,
    base_url: BaseUrl = None,
    device: Device = None,
    system: Annotated[str | None, typer.Option("--system", help="What the model is told beforehand.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it stands, without chat template.")] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Tokens of the longest answer.")] = 512,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", min=0, help="0 takes the likeliest.", rich_help_panel=HOW)
    ] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Probability to choose from.", rich_help_panel=HOW)] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Tokens, 0 all.", rich_help_panel=HOW)] = 0,
    min_p: Annotated[
        float, typer.Option("--min-p", help="Least probability, as a share of the likeliest.", rich_help_panel=HOW)
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Same seed, same answer.", show_default="a new one")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End before this text. Repeatable.")] = None,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="File with the JSON schema of the answer.", rich_help_panel=HOW)
    ] = None,
    regex: Annotated[
        str | None, typer.Option("--regex", help="Regular expression of the answer.", rich_help_panel=HOW)
    ] = None,
    speculation: Annotated[
        int | None, typer.Option("--speculation", min=0, help="Tokens guessed ahead.", show_default="what pays")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Say on standard error how it went.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object at the end, not the text.")] = False,
    sets: Sets = None,
) -> None:
    """Answer one prompt here and now, and stream the answer.

    The model is loaded for it; for many prompts, `penstock up` and a client are faster.
    """
    chosen = settings_of(config, given(sets, model=model, draft=draft, engine=engine, base_url=base_url, device=device))
    sampling = Sampling(
        seed=secrets.randbits(32) if seed is None else seed,
        max_output_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        stop=tuple(stop or ()),
        top_k=top_k,
        min_p=min_p,
        grammar=_grammar(schema, regex),
        speculation=speculation,
    )
    text = sys.stdin.read() if prompt == "-" else prompt
    quiet()
    answer = asyncio.run(_answer(chosen.model, text, sampling, system=system, raw=raw, streamed=not as_json))
    if as_json:
        typer.echo(json.dumps({"text": answer.text, "ids": answer.ids, **answer.figures()}, ensure_ascii=False))
    if stats:
        _show(answer)


async def _answer(
    model: ModelSettings, text: str, sampling: Sampling, *, system: str | None, raw: bool, streamed: bool
) -> Answer:
    """Load the model and answer; the text goes to standard output as it comes, if it is `streamed`."""
    from apps.generate import Answer, generate, prompt_of
    from apps.parts import loaded
    from apps.progress import progress

    async with AsyncExitStack() as stack:
        with progress(f"loading {model.name or 'the demo model'}") as tell:
            parts = await stack.enter_async_context(loaded(model, tell=tell))
        asked = await prompt_of(parts, text, sampling, system=system, raw=raw)
        answer = Answer(asked)
        try:
            await generate(parts, answer, _write if streamed else _nowhere)
        finally:
            if streamed and answer.text:
                typer.echo()
        return answer


def _write(text: str) -> None:
    try:
        typer.echo(text, nl=False)
    except BrokenPipeError:  # nobody reads on: `| head`, say
        os._exit(PIPE_GONE)


def _nowhere(_text: str) -> None:
    pass


def _show(answer: Answer) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in answer.figures().items():
        shown = f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
        table.add_row(name.replace("_", " "), shown, style="dim")
    Console(stderr=True).print(table, highlight=False)


def _grammar(schema: Path | None, regex: str | None) -> Grammar | None:
    if schema is not None and regex is not None:
        raise SettingsError("--regex", "there is a --schema already, and an answer has one shape")
    if regex is not None:
        return Grammar("regex", regex)
    if schema is None:
        return None
    try:
        return Grammar("json_schema", schema.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("--schema", f"cannot read {schema}: {error}") from error
