"""`penstock dead-letters`: what failed for good, looked at and sent on its way again."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from apps.cli.options import Config, Kafka, Sets, TopicPrefix, given
from apps.cli.running import INTERRUPTED, quiet, run, settings_of

if TYPE_CHECKING:
    from apps.dead_letters import Id, Letter, Survey, Wanted
    from apps.retry import Outcome
    from apps.settings import Settings
    from pipeline.bus import Bus

dead_letters = typer.Typer(no_args_is_help=True, help="Look at what failed for good, and send it on its way again.")

T = TypeVar("T")
FAILED = 1
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_NAMED = 20
"""Retried letters that are named one by one."""


def _seconds(text: str) -> float:
    """Seconds in `90s`, `15m`, `1h` or `2d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time span, which looks like 90s, 15m, 1h or 2d")
    return float(found[1]) * UNITS[found[2]]


Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Numbers from the list, like 0:17.")]
StageName = Annotated[str | None, typer.Option("--stage", help="Only what failed in this stage.")]
SessionName = Annotated[str | None, typer.Option("--session", help="Only what belongs to this session.")]
Since = Annotated[
    float | None, typer.Option("--since", parser=_seconds, metavar="1h", help="Only the last 90s, 15m, 1h, 2d ...")
]


@dead_letters.command("list")
def list_letters(
    stage: StageName = None,
    session: SessionName = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, a line each.")] = False,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """List the dead letters, the newest last. Of what users said, nothing is told but its size."""
    settings = _settings(config, kafka, topic_prefix, sets)
    from apps.cli.letters import line, summary, table
    from apps.dead_letters import survey

    found = _ask(settings, lambda bus: survey(bus, _wanted(stage, session, since), limit=limit))
    if as_json:
        sys.stdout.writelines(line(letter, found) for letter in found.letters)
    elif found.letters:
        Console(width=_width()).print(table(found), highlight=False)
    Console(stderr=True).print(summary(found, _place(settings)), highlight=False, markup=False, soft_wrap=True)


@dead_letters.command()
def show(
    number: Annotated[str, typer.Argument(metavar="ID", help="Its number in the list, like 0:17.")],
    text: Annotated[bool, typer.Option("--text", help="With what the user said.")] = False,
    save: Annotated[Path | None, typer.Option("--save", help="Write the record's bytes to this file, too.")] = None,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Show everything of one: why it failed, where it came from, and the message, without what the user said."""
    (at,) = _ids([number])
    settings = _settings(config, kafka, topic_prefix, sets)
    from apps.cli.letters import everything
    from apps.dead_letters import fetch, original, survey

    async def ask(bus: Bus) -> tuple[Letter, bytes, Survey]:
        if (letter := await fetch(bus, at)) is None:
            _refuse(f"there is no dead letter {at} at {_place(settings)}")
        record = None if letter.dead.value else await original(bus, letter.dead)
        return letter, record.value if record else letter.dead.value, await survey(bus, limit=1)

    letter, value, found = _ask(settings, ask)
    console = Console(width=_width())
    for part in everything(letter, value, found, text=text):
        console.print(part, highlight=False, soft_wrap=True)
    if save is not None:
        _save(value, save)


@dead_letters.command()
def retry(
    numbers: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not retried yet.")] = False,
    stage: StageName = None,
    session: SessionName = None,
    since: Since = None,
    force: Annotated[bool, typer.Option("--force", help="Also what was retried already.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before more than one.")] = False,
    rate: Annotated[float, typer.Option("--rate", min=0.01, help="At most so many a second: others wait, too.")] = 20.0,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Send records to the topics they came from again, once what made them fail is mended.

    A retry is a turn of its own (its name ends in .retry-1) without a deadline. The client was told `failed` and hears
    nothing more: the new answer stands in the topic replies. What fails again is a new letter. The old one stays.
    """
    if bool(numbers) == everything:
        raise typer.BadParameter("give the numbers of dead letters, or --all")
    if numbers and (stage or session or since):
        raise typer.BadParameter("--stage, --session and --since go with --all")
    ids = _ids(numbers or ())
    settings = _settings(config, kafka, topic_prefix, sets)
    from apps.dead_letters import survey

    found = _ask(settings, lambda bus: survey(bus, _wanted(stage, session, since)))
    chosen = _chosen(found, ids, force=force, place=_place(settings))
    if not chosen:
        Console(stderr=True).print("Nothing to retry.")
        return
    if len(chosen) > 1 and not yes:
        counts = Counter((letter.dead.stage, letter.dead.topic) for letter in chosen)
        what = ", ".join(f"{count} from {stage} (to {topic})" for (stage, topic), count in counts.items())
        typer.confirm(f"Retry {len(chosen)} dead letters: {what}?", abort=True, err=True)
    _send(settings, chosen, found, rate)


def _save(value: bytes, path: Path) -> None:
    if not value:
        _refuse("nothing is saved: the record is no longer there")
    try:
        path.write_bytes(value)
    except OSError as error:
        _refuse(f"{path} cannot be written: {error.strerror}")


def _chosen(found: Survey, ids: Sequence[Id], *, force: bool, place: str) -> list[Letter]:
    """The letters `ids` of what was `found`, or all."""
    if not ids:
        fresh = [letter for letter in found.letters if force or letter.id not in found.notes]
        if skipped := len(found.letters) - len(fresh):
            Console(stderr=True).print(f"Left out: {skipped} retried already; --force retries them, too.")
        return fresh
    letters = {letter.id: letter for letter in found.letters}
    if missing := [str(at) for at in ids if at not in letters]:
        _refuse(f"there is no dead letter {', '.join(missing)} at {place}")
    if (again := [str(at) for at in ids if at in found.notes]) and not force:
        _refuse(f"{', '.join(again)} was retried already; --force does it again")
    return [letters[at] for at in dict.fromkeys(ids)]


def _send(settings: Settings, chosen: Sequence[Letter], found: Survey, rate: float) -> None:
    """Retry, with a bar meanwhile and an account at the end, however it ends."""
    from apps.progress import progress
    from apps.retry import retry_all

    outcomes: list[Outcome] = []

    async def program(settings: Settings, stop: asyncio.Event) -> None:
        quiet()
        with progress(f"retrying {len(chosen)}") as tell:
            async with (
                _connected(settings) as bus,
                aclosing(retry_all(bus, chosen, found, per_s=rate, stop=stop)) as going,
            ):
                async for outcome in going:
                    outcomes.append(outcome)
                    tell(f"{len(outcomes)} of {len(chosen)}", len(outcomes) / len(chosen))

    try:
        run(program, settings)
    finally:
        _account(outcomes, len(chosen))
    if len(outcomes) < len(chosen):
        raise typer.Exit(INTERRUPTED)
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(FAILED)


def _account(outcomes: Sequence[Outcome], wanted: int) -> None:
    from apps.cli.letters import plain

    out, err = Console(), Console(stderr=True)
    done = [outcome for outcome in outcomes if outcome.problem is None]
    failed = [outcome for outcome in outcomes if outcome.problem is not None]
    for letter, turn, _ in done[:MOST_NAMED]:
        name = f" as turn {turn}" if turn else ""
        out.print(plain(f"{letter.id} to {letter.dead.topic}{name}"), highlight=False, soft_wrap=True)
    if len(done) > MOST_NAMED:
        out.print(f"and {len(done) - MOST_NAMED} more")
    for letter, _, problem in failed[:MOST_NAMED]:
        err.print(plain(f"{letter.id} not: {problem}"), style="red", highlight=False, soft_wrap=True)
    said = [f"{len(done)} retried"]
    if failed:
        said.append(f"{len(failed)} not")
    if left := wanted - len(outcomes):
        said.append(f"{left} not reached")
    hint = "answers come into the topic replies, and what fails again is a new letter" if done else ""
    err.print("; ".join(filter(None, [", ".join(said), hint])) + ".", highlight=False, soft_wrap=True)


def _settings(config: Path | None, kafka: str | None, prefix: str | None, sets: list[str] | None) -> Settings:
    settings = settings_of(config, given(sets, kafka=kafka, topic_prefix=prefix))
    quiet()
    return settings


def _ids(numbers: Iterable[str]) -> list[Id]:
    from apps.dead_letters import Id

    try:
        return [Id.parse(number) for number in numbers]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _wanted(stage: str | None, session: str | None, since: float | None) -> Wanted:
    from apps.dead_letters import Wanted

    return Wanted(stage, session, 0 if since is None else int((time.time() - since) * 1000))


def _place(settings: Settings) -> str:
    from pipeline.topics import DEAD_LETTERS

    return f"{settings.kafka.bootstrap}, topic {settings.kafka.topic_prefix}{DEAD_LETTERS.name}"


def _width() -> int | None:
    """A terminal's own width; wide enough for a line each where the output goes into a file or a pipe."""
    return None if sys.stdout.isatty() else 400


def _refuse(why: str) -> NoReturn:
    from pipeline.errors import PenstockError

    raise PenstockError(why)


def _ask(settings: Settings, question: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
    """The bus's answer."""

    async def ask() -> T:
        async with _connected(settings) as bus:
            return await question(bus)

    return asyncio.run(ask())


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncGenerator[Bus, None]:
    """The bus; what is not there is told with where it was looked for, and what to do.

    Raises:
        PenstockError: Kafka or the topic is not there.
    """
    from pipeline.errors import BusUnavailable, PenstockError, TopicMissing
    from pipeline.kafka import KafkaBus

    try:
        async with KafkaBus(settings.kafka) as bus:
            yield bus
    except BusUnavailable as error:
        cure = "is it running? Name another address with --kafka"
        raise PenstockError(f"Kafka at {settings.kafka.bootstrap} cannot be reached: {error.why}; {cure}") from error
    except TopicMissing as error:
        where = f"Kafka at {settings.kafka.bootstrap} has no topic {settings.kafka.topic_prefix}{error.topic}"
        cure = "create the route with `penstock topics create`, or name another place with --kafka or --topic-prefix"
        raise PenstockError(f"{where}; {cure}") from error
