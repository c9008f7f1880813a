"""How far the streams of a partition are settled beyond what is committed, in a note that is committed beside it.

A commit is one offset for all: the oldest that is not finished. Of a stream that is further, a new owner would read
again what stands behind that offset, from any place in its middle. The note tells it where each stream really begins.
"""

from __future__ import annotations

import logging
from base64 import b85decode, b85encode
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

log = logging.getLogger(__name__)

NOTE_BYTES = 4000
"""Kafka takes 4096 of them by default (`offset.metadata.max.bytes`): room for about 350 streams of a partition."""

DIGEST_BYTES = 6
"""Of a stream's name: enough for two in a thousand million partitions to be confused."""

Id = tuple[str, str]
"""(session, turn)."""


class Marks:
    """For each stream the offset up to which it is settled: what a former owner had noted, and what came since."""

    def __init__(self, note: str = "") -> None:
        self._through = _read(note)
        self.inherited = max(self._through.values(), default=-1)
        """The last offset that the note says anything about; -1 if there was none."""
        self._told = False

    def settle(self, turn: Id, offset: int) -> None:
        """All of `turn` up to `offset` is finished."""
        name = _digest(turn)
        self._through[name] = max(offset, self._through.get(name, -1))

    def covers(self, turn: Id, offset: int) -> bool:
        """Whether all of `turn` up to `offset` is finished."""
        return offset <= self._through.get(_digest(turn), -1)

    def note(self, committed: int) -> str:
        """What to commit beside the offset `committed`. What that says already is forgotten here.

        First the offset that all others are told from, then name and distance of each, the furthest first.
        """
        if not self._through:
            return ""
        self._through = {name: offset for name, offset in self._through.items() if offset >= committed}
        marks = sorted(self._through.items(), key=lambda mark: -mark[1])
        pieces = [_number(committed), *(name + _number(offset - committed) for name, offset in marks)]
        fit = _that_fit(pieces)
        if fit < len(pieces):
            self._warn(fit - 1)
        return b85encode(b"".join(pieces[:fit])).decode() if marks else ""

    def _warn(self, room: int) -> None:
        if not self._told:
            log.warning(
                "%d streams of one partition are settled beyond its commit, and a note has room for %d: "
                "a new owner would begin the others in their middle; give the topic more partitions",
                len(self._through),
                room,
            )
        self._told = True


def _digest(turn: Id) -> bytes:
    session, name = turn
    return blake2b(f"{len(session)}:{session}{name}".encode(), digest_size=DIGEST_BYTES).digest()


def _that_fit(pieces: Sequence[bytes]) -> int:
    """How many of the first pieces a note has room for: four bytes need five characters."""
    lengths = accumulate(len(piece) for piece in pieces)
    return sum(1 for length in lengths if length <= NOTE_BYTES // 5 * 4)


def _read(note: str) -> dict[bytes, int]:
    """The name and the offset of each mark in a note; nothing if it is the note of somebody else."""
    try:
        data = b85decode(note)
        base, at = _take_number(data, 0)
        through: dict[bytes, int] = {}
        while at < len(data):
            name = data[at : at + DIGEST_BYTES]
            ahead, at = _take_number(data, at + DIGEST_BYTES)
            through[name] = base + ahead
    except (ValueError, IndexError):
        if note:
            log.warning("a note beside a commit is none of ours, and does not count: %.40r", note)
        return {}
    return through


def _number(value: int) -> bytes:
    """Seven bits a byte, the low ones first; the last byte has its top bit clear (LEB128)."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _take_number(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at byte `at`, and where the next thing begins."""
    value = shift = 0
    while data[at] > 0x7F:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
