"""How dead letters look: as a table, as lines of JSON, and one in full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from apps.dead_letters import Letter, Note, Survey, message_of
from apps.discretion import discreet, dump, veiled
from pipeline.headers import RETRY, TRACE

LONGEST_REASON = 120
MOST_STRANGE = 5
MOST_TRACED = 20_000


def table(found: Survey) -> Table:
    """The letters, the newest last."""
    made = Table(box=None, pad_edge=False)
    for name in ("id", "when", "stage", "from", "session", "turn", "error", "bytes", "retried"):
        made.add_column(name, overflow="fold", no_wrap=name in ("id", "when", "from", "bytes"))
    for letter in found.letters:
        dead = letter.dead
        when, retried = _short(letter.when), _retried(found.notes.get(letter.id, ()))
        size = f"{letter.size:,}" if letter.size else "-"
        cells = (str(letter.id), when, dead.stage, dead.topic, letter.session, letter.turn, _why(letter), size, retried)
        made.add_row(*(plain(cell) for cell in cells))
    return made


def _why(letter: Letter) -> str:
    """The error on a line, without what the other columns tell."""
    reason = letter.reason.removeprefix(f"a record on topic {letter.dead.topic!r} is none of its messages: ")
    told = " ".join(f"{letter.kind}: {reason}".split()).removesuffix(":")
    return told if len(told) <= LONGEST_REASON else told[: LONGEST_REASON - 1] + "…"


def summary(found: Survey, place: str) -> str:
    """What the list is of: `place` names the broker and the topic."""
    if not found.total:
        said = f"No dead letters ({place})."
    elif not found.matching:
        said = f"None of the {found.total:,} dead letters is one of these ({place})."
    elif len(found.letters) < found.matching:
        said = f"The newest {len(found.letters):,} of {found.matching:,} dead letters; --limit shows more."
    else:
        said = f"{found.matching:,} of {found.total:,} dead letters."
    if found.strange:
        places = ", ".join(str(at) for at in found.strange[:MOST_STRANGE])
        said += f" {len(found.strange)} records are no dead letters: {places}."
    return said


def line(letter: Letter, found: Survey) -> str:
    """A letter as a line of JSON."""
    dead = letter.dead
    told = {
        "id": str(letter.id),
        "when": _iso(letter.when),
        "stage": dead.stage,
        "topic": dead.topic,
        "partition": dead.partition,
        "offset": dead.offset,
        "session": letter.session,
        "turn": letter.turn,
        "error": letter.kind,
        "reason": letter.reason,
        "attempts": dead.attempts,
        "retry": letter.attempt,
        "bytes": letter.size,
        "retried": [
            {"when": _iso(note.when), "retry": note.attempt, "turn": note.turn}
            for note in found.notes.get(letter.id, ())
        ],
    }
    return json.dumps(told) + "\n"


def everything(letter: Letter, value: bytes, found: Survey, *, text: bool) -> Iterator[RenderableType]:
    """All of one letter, about a record with this `value`; what the user said only with `text`."""
    yield _facts(letter, found.notes.get(letter.id, ()))
    dead = letter.dead
    message = message_of(dead.topic, value)
    reason = dead.error.partition(": ")[2] if text else letter.reason
    yield Text.assemble("\n", (letter.kind, "bold red"), ": " if reason else "", plain(reason))
    if dead.traceback:
        yield plain(dead.traceback if text else discreet(dead, message, dead.traceback, most=MOST_TRACED))
    yield Text("")
    if message is not None:
        values = msgspec.to_builtins(message)
        yield plain(json.dumps(values if text else veiled(values), indent=2, ensure_ascii=False))
    elif value:
        yield plain("\n".join(dump(value, veil=not text)))
    else:
        yield Text("The record was too large for its letter, and is no longer in its topic.")
    if value and not text:
        yield Text("\nWhat the user said is left out; --text shows it.", style="dim")


def _facts(letter: Letter, notes: Sequence[Note]) -> Table:
    dead = letter.dead
    made = Table(box=None, show_header=False, pad_edge=False)
    trace = dead.headers.get(TRACE, "").split("-")
    rows = {
        "dead letter": f"{letter.id}, {_local(letter.when)}",
        "stage": f"{dead.stage}, gave up after attempt {dead.attempts}",
        "record": f"{dead.topic} {dead.partition}:{dead.offset}, key {dead.key}, {letter.size:,} bytes",
        "session": letter.session,
        "turn": letter.turn + (f" (retry {letter.attempt})" if RETRY in dead.headers else ""),
        "trace": trace[1] if len(trace) > 1 else "none",
        "headers": "\n".join(f"{name}: {value}" for name, value in dead.headers.items()) or "none",
        "retried": "\n".join(f"{_local(note.when)} as {note.turn}" for note in notes) or "never",
    }
    for name, value in rows.items():
        made.add_row(Text(name, style="dim"), plain(value))
    return made


def plain(text: str) -> Text:
    """`text` without markup, and without characters that would steer a terminal."""
    return Text("".join(one if one.isprintable() or one in "\n" else "�" for one in text))


def _retried(notes: Sequence[Note]) -> str:
    times = f" ({len(notes)} times)" if len(notes) > 1 else ""
    return _short(notes[-1].when) + times if notes else ""


def _short(ms: int) -> str:
    return _local(ms)[len("2026-") :]


def _local(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
