"""How dead letters look: nothing in them steers the terminal, and nothing that a user said stands there unasked."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console, RenderableType

from apps.cli.letters import everything, line, summary, table
from apps.dead_letters import Id, Letter, Note, Survey, letter_of
from pipeline.bus import Part, Record
from pipeline.headers import RETRY, TRACE
from pipeline.messages import DeadLetter, Turn, Utterance
from pipeline.topics import DEAD_LETTERS, TURNS
from tests.apps.letters import a_letter

SAID = "I am Alice Cooper"
WHEN = 1_790_000_000_000
VALUE = TURNS.encode(Turn("s", "t", (Utterance("user", SAID),)))


def read(dead: DeadLetter, offset: int = 17) -> Letter:
    """A letter as it is read from its topic."""
    record = Record(Part(DEAD_LETTERS.name, 0), offset, WHEN, dead.key, DEAD_LETTERS.encode(dead), {})
    letter = letter_of(record)
    assert letter is not None
    return letter


def surveyed(*letters: Letter, matching: int = 0) -> Survey:
    """A survey that found them, or kept them of more."""
    count = matching or len(letters)
    return Survey(list(letters), total=count, matching=count)


def rendered(*parts: RenderableType, width: int = 200) -> str:
    """What a terminal is sent."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    for part in parts:
        console.print(part, highlight=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(letter: Letter, value: bytes, found: Survey | None = None, *, text: bool = False) -> str:
    """All of a letter."""
    return rendered(*everything(letter, value, found or surveyed(letter), text=text))


def test_a_table_has_a_line_for_each_letter() -> None:
    """Where, when and why, without what the user said, and whether it was retried."""
    one, two = read(a_letter(value=VALUE, error=f"ValueError: no {SAID}!")), read(a_letter("t2"), 18)
    found = surveyed(one, two)
    found.notes[two.id] += [Note(WHEN, 1, "t2.retry-1"), Note(WHEN, 2, "t2.retry-2")]
    _, first, second = rendered(table(found)).splitlines()
    assert first.split()[0] == "0:17"
    assert "ValueError: no …!" in first
    assert second.rstrip().endswith("(2 times)")


def test_a_reason_is_one_short_line() -> None:
    """Lines of an error become one, and a long one is cut; what another column tells is left out."""
    lines = read(a_letter(error="OSError: one\n  two\n" + "x" * 500))
    known = read(a_letter(error="UndecodableMessage: a record on topic 'turns' is none of its messages: truncated"))
    _, first, second = rendered(table(surveyed(lines, known))).splitlines()
    assert "OSError: one two xxx" in first
    assert "…" in first
    assert "UndecodableMessage: truncated " in second


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_loses_nothing(width: int) -> None:
    """Names are folded, never cut."""
    letter = read(a_letter(value=TURNS.encode(Turn("sess_0123456789", "resp_0123456789", ()))))
    told = rendered(table(surveyed(letter)), width=width)
    assert "…" not in told
    assert "0:17" in told


def test_a_line_of_json_tells_all_that_is_listed() -> None:
    """One object on one line, with times that sort, and no text."""
    letter = read(a_letter(value=VALUE, error=f"ValueError: no {SAID}!"))
    found = surveyed(letter)
    found.notes[letter.id].append(Note(WHEN, 1, "t.retry-1"))
    written = line(letter, found)
    told = json.loads(written)
    assert written.count("\n") == 1
    assert (told["id"], told["session"], told["turn"], told["bytes"]) == ("0:17", "s", "t", len(VALUE))
    assert (told["error"], told["reason"]) == ("ValueError", "no …!")
    assert told["retried"] == [{"when": "2026-09-21T14:13:20.000+00:00", "retry": 1, "turn": "t.retry-1"}]
    assert "Alice" not in written


def test_a_letter_is_shown_whole_but_for_what_was_said() -> None:
    """Error, traceback, headers, trace and message; with the text only if that is asked for."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    dead = a_letter(
        value=VALUE,
        headers={TRACE: trace, RETRY: "2"},
        turn="t.retry-2",
        error=f"ValueError: no {SAID}!",
        traceback=f'File "stage.py", line 3\nValueError: no {SAID}!',
    )
    letter = read(dead)
    told, all_told = shown(letter, VALUE), shown(letter, VALUE, text=True)
    for piece in ("4bf92f3577b34da6a3ce929d0e0e4736", "retry: 2", "ValueError: no …!", 'File "stage.py", line 3'):
        assert piece in told
    assert '"text": "(17 characters)"' in told
    assert "Alice" not in told
    assert all_told.count(SAID) == 3
    assert "left out" not in all_told


def test_a_record_that_had_no_room_is_shown_from_its_topic() -> None:
    """Or it is said that it is gone."""
    letter = read(a_letter(value=b"", error="MessageTooLarge: 2 MB"))
    assert '"type": "turn"' in shown(letter, VALUE)
    assert "no longer in its topic" in shown(letter, b"")


def test_nothing_in_a_letter_steers_the_terminal() -> None:
    """Escape sequences, markup and overrides of the writing direction are shown as what they are."""
    evil = "\x1b[2J[red]\u202eevil[/]\x07"
    letter = read(a_letter(value=b"\xc1", session=evil, turn=evil, key=evil, error=f"PenstockError: {evil}"))
    for told in (shown(letter, b"\xc1\x1b[2J", text=True), rendered(table(surveyed(letter)))):
        assert not {"\x1b", "\u202e", "\x07"} & set(told)
        assert "[red]" in told


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Survey(), "No dead letters (there)."),
        (Survey(total=1200), "None of the 1,200 dead letters is one of these (there)."),
        (surveyed(read(a_letter())), "1 of 1 dead letters."),
        (surveyed(read(a_letter()), matching=9), "The newest 1 of 9 dead letters; --limit shows more."),
        (Survey(strange=[Id(0, 3)]), "No dead letters (there). 1 records are no dead letters: 0:3."),
    ],
)
def test_a_list_says_what_it_is_of(found: Survey, said: str) -> None:
    """How many there are, how many were asked for, and where it looked if there are none."""
    assert summary(found, "there") == said
