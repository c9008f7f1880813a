"""Dead letters for tests."""

from __future__ import annotations

from typing import Any

from pipeline.bus import Bus
from pipeline.headers import REPLY_TO, TURN
from pipeline.messages import DeadLetter
from pipeline.topics import DEAD_LETTERS, TURNS
from tests.pipeline.fakes import make_turn, published


def a_letter(turn: str = "t", **changed: Any) -> DeadLetter:
    """A letter of the text stage that failed on a turn."""
    value = TURNS.encode(make_turn(turn))
    fields: dict[str, Any] = {"key": "s", "headers": {REPLY_TO: "0", TURN: turn}, "error": "KeyError: 'x'"}
    fields |= {"stage": "text", "topic": "turns", "partition": 0, "offset": 7, "value": value, "attempts": 1}
    return DeadLetter(**{"session": "s", "turn": turn, **fields, **changed})


async def post(bus: Bus, letter: DeadLetter) -> None:
    """Publish a letter as a stage does."""
    await published(bus, DEAD_LETTERS.name, DEAD_LETTERS.encode(letter), key=letter.key, headers={})
