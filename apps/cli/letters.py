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

LONGEST_REASON = 80
MOST_STRANGE = 5


def table(found: Survey) -> Table:
    """The letters, the newest last."""
    made = Table("id", "when", "stage", "from", "session", "turn", "error", "reason", "bytes", "retried", box=None)
    for letter in found.letters:
        dead, reason = letter.dead, letter.reason
        reason = reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"
        when, size, retried = _local(letter.when), f"{letter.size:,}", _retried(found.notes.get(letter.id, ()))
        cells = (str(letter.id), when, dead.stage, dead.topic, letter.session, dead.turn, letter.kind, reason, size)
        made.add_row(*(plain(cell) for cell in (*cells, retried)))
    return made


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
        "turn": dead.turn,
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


def everything(letter: Letter, found: Survey, *, text: bool) -> Iterator[RenderableType]:
    """All of one letter; what the user said only with `text`."""
    yield _facts(letter, found.notes.get(letter.id, ()))
    dead = letter.dead
    message = message_of(dead.topic, dead.value)
    yield Text("")
    yield Text.assemble((letter.kind, "bold red"), ": " if dead.error != letter.kind else "")
    yield plain(dead.error.partition(": ")[2] if text else letter.reason)
    if dead.traceback:
        yield plain(dead.traceback if text else discreet(dead, message, dead.traceback, most=20_000))
    yield Text("")
    if message is not None:
        values = msgspec.to_builtins(message)
        yield plain(json.dumps(values if text else veiled(values), indent=2, ensure_ascii=False))
    elif dead.value:
        yield plain("\n".join(dump(dead.value, veil=not text)))
    else:
        yield Text("The record had no room in its letter.")
    if not text:
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
        "turn": dead.turn + (f" (retry {letter.attempt})" if RETRY in dead.headers else ""),
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
    return _local(notes[-1].when) + times if notes else ""


def _local(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
