"""Reading sessions' pasts back from the log: all who ask at once for the same partition are served by one reading."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import defaultdict
from dataclasses import dataclass, field

from pipeline.bus import Bus, Part, Record
from pipeline.errors import BusUnavailable

BATCH = 1000
MOST_BYTES = 8 << 20
"""Of one session's past, which snapshots keep far shorter than that."""
MOST_AT_ONCE = 100
"""Sessions that are read in one go, so that their pasts have room in memory."""
PATIENCE_S = 15.0
SILENCE_S = 1.0
MOST_SILENT = 3


@dataclass
class Past:
    """What stands of `session` in the log from `start` up to `end`; `first` is the oldest offset that could be read.

    Without an `end` it is all up to the present one. `whole` is false where it is too much to be read back.
    """

    session: str
    start: int
    first: int
    end: int | None = None
    records: list[Record] = field(default_factory=list)
    size: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.size <= MOST_BYTES

    def add(self, record: Record) -> None:
        """Take a record, if it is asked for and while there is room."""
        if self.end is not None and record.offset >= self.end:
            return
        self.size += len(record.value)
        if self.whole:
            self.records.append(record)


class History:
    """Reads pasts back from `bus`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._asked: defaultdict[Part, list[tuple[Past, Future[Past]]]] = defaultdict(list)
        self._reading: defaultdict[Part, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def read(self, part: Part, session: str, start: int, end: int | None = None) -> Past:
        """What `part` has of `session` from `start` up to `end`, or its present end.

        Raises:
            BusUnavailable: it could not be read in time.
        """
        answer: Future[Past] = asyncio.get_running_loop().create_future()
        self._asked[part].append((Past(session, start, start, end), answer))
        try:
            async with self._reading[part]:
                while not answer.done():
                    await self._read(part)
            return answer.result()
        finally:
            answer.cancel()

    async def _read(self, part: Part) -> None:
        """Read once for all who have asked so far."""
        waiting = [one for one in self._asked.pop(part) if not one[1].cancelled()]
        asked, self._asked[part] = waiting[:MOST_AT_ONCE], waiting[MOST_AT_ONCE:]
        try:
            await self._fill(part, [past for past, _ in asked])
        except BaseException:
            self._asked[part] += [(Past(old.session, old.start, old.start, old.end), answer) for old, answer in asked]
            raise
        for past, answer in asked:
            if not answer.done():
                answer.set_result(past)

    async def _fill(self, part: Part, pasts: list[Past]) -> None:
        wanted: defaultdict[str, list[Past]] = defaultdict(list)
        for past in pasts:
            wanted[past.session].append(past)
        start = position = min(past.start for past in pasts)
        end = _furthest(pasts, await self._bus.end(part))
        deadline, silent = time.monotonic() + PATIENCE_S, 0
        if start >= end:
            return
        async with self._bus.reader({part: start}) as reader:
            while position < end and silent < MOST_SILENT:
                if time.monotonic() > deadline:
                    raise BusUnavailable(part.topic, f"it could not be read up to {end} within {PATIENCE_S:g} s")
                records = await reader.poll(limit=BATCH, timeout=SILENCE_S)
                silent = 0 if records else silent + 1
                if records and position == start:
                    _note_first(pasts, start, records[0].offset)
                for record in records:
                    for past in wanted.get(record.key.partition("/")[0], ()):
                        past.add(record)
                position = records[-1].offset + 1 if records else position
                await asyncio.sleep(0)
        if position == start:
            _note_first(pasts, start, end)


def _furthest(pasts: list[Past], present: int) -> int:
    """Up to where to read for all of them; no further than to the present end."""
    return min(present, max(present if past.end is None else past.end for past in pasts))


def _note_first(pasts: list[Past], start: int, first: int) -> None:
    """What was asked for from `start` on could be read from `first` on only."""
    if first > start:
        for past in pasts:
            past.first = max(past.start, first)
