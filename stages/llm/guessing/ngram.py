"""What followed the last time the text came to this point: guesses that need no model.

Each position is chained to the one before it where the same two tokens end, as in LZ77 coders (RFC 1951, section 4), so
that a token is indexed in constant time and a search looks at the most recent places only. Knows no model.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

LEAST = 2
"""Tokens before a place that must be the same."""

LONGEST = 32
"""Agreement beyond so many tokens is not told apart."""

PLACES = 16
"""Places that a search looks at, the most recent first, beside the one that it found last."""


class Match(NamedTuple):
    """An earlier place of the text's last `length` tokens: they end before position `end`."""

    end: int
    length: int


class NGramIndex:
    """The places of a text that only grows. The text itself is its owner's, and is given with each call.

    Places are counted by the tokens before them; no place is 0.
    """

    def __init__(self) -> None:
        self.size = 0
        """Tokens that are indexed."""
        self._latest: dict[int, int] = {}
        self._before = array("I", [0])
        self._found: Match | None = None
        self._found_at = 0

    def extend(self, text: Sequence[int], most: int) -> None:
        """Index what of `text` is not yet indexed, at most `most` tokens of it."""
        end = min(len(text), self.size + most)
        latest, before = self._latest, self._before
        if self.size == 0 and end:
            before.append(0)
            self.size = 1
        for place in range(self.size + 1, end + 1):
            pair = text[place - 2] << 32 | text[place - 1]
            before.append(latest.get(pair, 0))
            latest[pair] = place
        self.size = max(self.size, end)

    def find(self, text: Sequence[int]) -> Match | None:
        """Where the end of `text` stood before: the longest match of the places looked at, of these the most recent.

        A match that goes on as the text does is never lost, however many places have come since.
        """
        size = len(text)
        best = self._followed(text)
        place = self._previous(text)
        for _ in range(PLACES):
            if not place or (best.length >= LONGEST and place < best.end):
                break
            length = _agreement(text, place, size)
            if (length, place) > (best.length, best.end):
                best = Match(place, length)
            place = self._before[place]
        self._found, self._found_at = best if best.length else None, size
        return self._found

    def guess(self, text: Sequence[int], match: Match, count: int) -> list[int]:
        """The `count` tokens that follow if the text goes on as at `match`; at the text's end it begins again."""
        tokens = list(text[match.end : match.end + count])
        while 0 < len(tokens) < count:
            tokens += tokens[: count - len(tokens)]
        return tokens

    def _previous(self, text: Sequence[int]) -> int:
        """The latest place before the end of `text` where its last two tokens stand."""
        size = len(text)
        if size < LEAST:
            return 0
        if self.size == size:
            return self._before[size]
        return self._latest.get(text[size - 2] << 32 | text[size - 1], 0)

    def _followed(self, text: Sequence[int]) -> Match:
        """The match found last, moved to the end of `text`, if it went on as the text did."""
        found, new = self._found, len(text) - self._found_at
        if found is None or text[found.end : found.end + new] != text[self._found_at :]:
            return Match(0, 0)
        return Match(found.end + new, min(LONGEST, found.length + new))


def _agreement(text: Sequence[int], place: int, end: int) -> int:
    """How many tokens before `place` and before `end` are the same, at least the two known to be."""
    length = LEAST
    limit = min(LONGEST, place)
    while length < limit and text[place - length - 1] == text[end - length - 1]:
        length += 1
    return length
