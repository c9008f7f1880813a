"""What stages say of turns whose beginning has not been read yet: kept, as far as there is room."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.messages import Finished, Message

MOST_HELD = 2000
"""Records that may come before their turn's `response.created`."""
MOST_UNKNOWN = 16
"""Turns that may come before theirs, in a log that is read again."""


class Held:
    """Records by their turn."""

    def __init__(self) -> None:
        self._held: dict[str, list[Message]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def __contains__(self, turn: str) -> bool:
        return turn in self._held

    @property
    def full(self) -> bool:
        """Whether so many turns wait that no other one may."""
        return len(self._held) >= MOST_UNKNOWN

    def add(self, message: Message) -> None:
        """Keep a record."""
        held = self._held.setdefault(message.turn, [])
        if len(held) < MOST_HELD:
            held.append(message)
        elif isinstance(message, Finished):
            held[-1] = message  # a piece is missing now, so the end will say failed

    def pop(self, turn: str) -> list[Message]:
        """What was kept of a turn, which is not kept any more."""
        return self._held.pop(turn, [])

    def keep(self, turns: Collection[str]) -> None:
        """Keep only what is of these turns."""
        self._held = {turn: held for turn, held in self._held.items() if turn in turns}
