"""How far an answer has been spoken, and which of its words were heard up to a position. Knows no event.

Positions are samples at 24 kHz, whatever the encoding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict

import msgspec

from pipeline.messages import Encoding
from pipeline.voice import RATE, Spoken

MOST_TRACKS = 16
"""Answers of which it is remembered where in their audio which word is."""
MS = RATE // 1000
"""Samples in a millisecond."""


def samples(data: bytes, encoding: Encoding) -> int:
    """How long `data` is; half a sample at its end does not count."""
    return len(data) // 2 if encoding == "pcm16" else len(data) * 3


class Track(msgspec.Struct, omit_defaults=True):
    """The audio of one answer: `position` is its length so far, `over` says that this is all there will be.

    `marks` are (characters of the answer, position) pairs, both growing: so much has been spoken there. `whole` says
    that there all of its text has been.
    """

    encoding: Encoding = "pcm16"
    position: int = 0
    marks: list[tuple[int, int]] = msgspec.field(default_factory=list)
    over: bool = False
    whole: bool = False

    @property
    def ms(self) -> int:
        """How long it is so far, in milliseconds."""
        return self.position // MS

    def fresh(self, piece: Spoken) -> bytes | None:
        """What of `piece` was not heard yet; None where audio before it is missing."""
        if piece.at > self.position:
            return None
        behind = self.position - piece.at
        data = piece.data[behind * 2 if self.encoding == "pcm16" else -(-behind // 3) :]
        self.position = max(self.position, piece.at + samples(piece.data, self.encoding))
        self.marks += [mark for mark in piece.marks if not self.marks or mark[1] > self.marks[-1][1]]
        self.over = self.over or piece.last
        self.whole = self.over and piece.problem is None
        return data

    def cut(self, position: int) -> Track:
        """The same, of which no more than up to `position` was heard."""
        marks = [mark for mark in self.marks if mark[1] <= position]
        return Track(self.encoding, min(position, self.position), marks, over=True, whole=True)

    def words(self, text: str, position: int) -> str:
        """What of the answer `text` has been spoken at `position`: whole words, between two marks by their share."""
        if position <= 0:
            return ""
        marks = [*self.marks, (len(text), self.position)] if self.whole else self.marks
        if not marks or (self.whole and position >= self.position):
            return text
        number = bisect_right(marks, position, key=lambda mark: mark[1])
        chars, since = marks[number - 1] if number else (0, 0)
        if number < len(marks):
            then, until = marks[number]
            chars += (then - chars) * (position - since) // (until - since)
        return _whole_words(text, chars)


class Tracks(OrderedDict[str, Track]):
    """The audio of the last answers, by their items."""

    def add(self, item_id: str, track: Track) -> None:
        """Remember an answer that is over, in the place of the oldest."""
        self[item_id] = track
        if len(self) > MOST_TRACKS:
            self.popitem(last=False)


def _whole_words(text: str, chars: int) -> str:
    """The words of `text` that are wholly among its first characters."""
    end = min(chars, len(text))
    while 0 < end < len(text) and not text[end].isspace():
        end -= 1
    return text[:end].rstrip()
