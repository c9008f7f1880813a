"""What an operator is shown of a message: all that is needed to mend it, and nothing that a user said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apps.discretion import MOST_DUMPED, discreet, dump, veiled
from pipeline.messages import DeadLetter, Prompt, Sampling, Tokens, Turn, Utterance
from pipeline.topics import TOPIC_OF, TURNS

SAID = "I am Alice Cooper, 12 Elm Road"
TURN = Turn("s", "t", (Utterance("user", SAID), Utterance("user", "Bob")), Sampling(stop=("secret",)), "a model")


def a_letter(error: str, message: Any = TURN, **changed: Any) -> DeadLetter:
    """A letter of a stage that failed with `error`."""
    topic = TOPIC_OF[type(message)]
    fields: dict[str, Any] = {"stage": "text", "partition": 0, "offset": 0, "key": "s", "headers": {}, "attempts": 1}
    fields |= {"topic": topic.name, "value": topic.encode(message), "error": error}
    return DeadLetter("s", "t", **{**fields, **changed})


def test_a_message_is_shown_without_what_was_said() -> None:
    """Who, how and how much stays; texts and token ids become sizes."""
    told = veiled(msgspec.to_builtins(TURN))
    assert told["conversation"][0] == {"role": "user", "text": f"({len(SAID)} characters)"}
    assert (told["session"], told["turn"], told["model"]) == ("s", "t", "a model")
    assert told["sampling"] == {"stop": ["(6 characters)"]}
    assert veiled(msgspec.to_builtins(Prompt("s", "t", (1, 2, 3))))["ids"] == "(3 numbers)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("KeyError: 'x'", "'x'"),
        (f"ValueError: cannot parse {SAID!r} here", "cannot parse '…' here"),
        ("ValueError: no number in 'am Alice Cooper' at 3", "no number in '…' at 3"),
        ("ValueError: unknown name Bob", "unknown name …"),
        ("ZeroDivisionError", ""),
    ],
)
def test_a_reason_repeats_nothing_that_was_said(error: str, told: str) -> None:
    """An error's text often quotes what it stumbled over."""
    assert discreet(a_letter(error), TURN) == told


def test_another_text_is_treated_alike() -> None:
    """A traceback ends with the error's text."""
    assert discreet(a_letter("ValueError: x"), TURN, f"line 3\n  {SAID}", most=100) == "line 3\n  …"


def test_our_own_errors_are_told_in_full() -> None:
    """They never hold what a user said, and are told also where the message cannot be read."""
    assert discreet(a_letter("UndecodableMessage: a record is none"), None) == "a record is none"
    assert discreet(a_letter("MessageTooLarge: 12 bytes"), TURN) == "12 bytes"


def test_where_nothing_can_be_compared_only_the_size_is_told() -> None:
    """Of a record that is gone, or holds the words as tokens, nobody can tell what a user said."""
    assert discreet(a_letter(f"ValueError: {SAID}", value=b""), None) == f"({len(SAID)} characters)"
    tokens = Tokens("s", "t", 0, (1, 2))
    assert discreet(a_letter(f"ValueError: {SAID}", tokens), tokens) == f"({len(SAID)} characters)"


def test_bytes_are_shown_with_their_structure_and_without_text() -> None:
    """Our field names and the bytes between stay; everything else that can be read is hidden, in hexadecimal, too."""
    words = ("Alice Cooper", "Zürich", "你好")
    value = TURNS.encode(Turn("s", "t", (Utterance("user", ", ".join(words)),)))
    veil, bare = (list(dump(value, veil=veil)) for veil in (True, False))
    told, open_ = ("".join(line[8:56].replace(" ", "") for line in lines) for lines in (veil, bare))
    assert open_ == value.hex()
    assert len(told) == len(open_)
    for name in (b"conversation", b"text", b"\x84\xa4"):
        assert name.hex() in told
    for word in words:
        assert word.encode().hex() in open_
        assert word.encode().hex()[:6] not in told
    assert "Alice" in "".join(line[-16:] for line in bare)
    assert "Alice" not in "".join(line[-16:] for line in veil)


def test_a_long_record_is_shown_in_its_beginning() -> None:
    """The rest is counted."""
    lines = list(dump(b"\1" * (MOST_DUMPED + 1000), veil=True))
    assert len(lines) == MOST_DUMPED // 16 + 1
    assert lines[-1] == "... and 1,000 bytes more"
    assert list(dump(b"", veil=True)) == []
