"""Find stop strings in text that comes in pieces.

Knows nothing of tokens. The engine uses it to end an answer, the postprocessing stage to cut it; both go by one rule,
and that rule does not depend on how the text was cut into pieces: the stop string that is *complete* first wins, and
of those that are complete at the same character, the longest.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Holds back what may be the beginning of one of `stops`, and lets the rest pass.

    `found` is true once a stop string was complete; nothing passes after that. What is held is shorter than the longest
    stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that `text` lets pass: certainly before any stop string."""
        if self.found or not text:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        hits = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self.found, self._held = True, ""
            return text[: min(hits)[1]]
        keep = max(_beginning(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What is held, when no more text will come."""
        held, self._held = self._held, ""
        return held


def _beginning(text: str, stop: str) -> int:
    """The length of the longest end of `text` with which `stop` begins, `stop` itself excluded."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
