"""The responses of a session that wait until what was said before them is known. Changes only by what is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from pipeline.messages import Told

WANTED: Mapping[str, Any] = {"type": "response.create"}
"""The response that a turn of speech asks for."""


class Waiting:
    """`wanted` is the one that will write to the conversation, `beside` are those that will not, in their order."""

    def __init__(self) -> None:
        self.wanted: dict[str, Any] | None = None
        self.beside: deque[dict[str, Any]] = deque()

    def told(self, told: Told) -> None:
        """Take over what waits from here on, and what does not any more."""
        if told.beside:
            if told.served and self.beside:
                self.beside.popleft()
            self.beside.extend([told.wanted] if told.wanted else [])
            return
        self.wanted = told.wanted or (None if told.served else self.wanted)

    def speak(self) -> None:
        """A turn of speech asks for a response, unless one waits already."""
        self.wanted = self.wanted or {**WANTED}
