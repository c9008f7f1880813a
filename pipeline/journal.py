"""Takeover: fence off the former owner of a partition, and read back what it had already published.

A new owner first publishes a *claim* to its partition of the journal, and only then reads the journal up to that claim.
What stands before the claim counts and is gone on from; what a former owner, paused and awake again, publishes behind
it carries a lower epoch and is dropped by every reader. So the cut between two owners is one offset in one log.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.bus import Bus, Headers, Part, Record
from pipeline.errors import BusUnavailable
from pipeline.headers import CLAIM, EPOCH
from pipeline.messages import Message
from pipeline.topics import Topic

CLOCK_SKEW_MS = 5_000
"""How far the clocks that stamp two topics may be apart."""

Published = Mapping[tuple[str, str], Sequence[Message]]
"""What a former owner had published, by (session, turn), in order."""


class Fence:
    """Tells which records of one partition are its present owner's. Reads them in order."""

    def __init__(self) -> None:
        self._epoch = -1

    def passes(self, record: Record) -> bool:
        """Whether `record` carries a message that counts: it is no claim, and not a former owner's."""
        if CLAIM in record.headers:
            self._epoch = max(self._epoch, record.offset)
            return False
        if EPOCH not in record.headers:
            return True
        epoch = _epoch(record.headers[EPOCH])
        self._epoch = max(self._epoch, epoch)
        return epoch == self._epoch


def _epoch(text: str) -> int:
    """The epoch that `text` says; one below all others if it says none."""
    return int(text) if text.isdecimal() else -2


async def claim(bus: Bus, part: Part, owner: str) -> int:
    """Make the caller the only owner of `part`; the epoch under which it publishes from now on."""
    delivery = await bus.publish(part.topic, b"", key="", headers={CLAIM: owner}, partition=part.number)
    return await delivery


def under(epoch: int, headers: Headers) -> Headers:
    """`headers` of a record that is published under `epoch`."""
    return {**headers, EPOCH: str(epoch)}


async def read_back(bus: Bus, topic: Topic, part: Part, *, since: int, epoch: int, patience: float = 30.0) -> Published:
    """What counts in `part` from the time `since` (ms since 1970) up to the claim at offset `epoch`."""
    start = min(await bus.offset_at(part, since - CLOCK_SKEW_MS), epoch)
    published: defaultdict[tuple[str, str], list[Message]] = defaultdict(list)
    fence = Fence()
    position, deadline = start, time.monotonic() + patience
    async with bus.reader({part: start}) as reader:
        while position < epoch:
            if time.monotonic() > deadline:
                raise BusUnavailable(part.topic, f"the journal could not be read up to {epoch} within {patience} s")
            for record in await reader.poll(limit=1000, timeout=1.0):
                position = record.offset + 1
                if record.offset < epoch and fence.passes(record):
                    message = topic.decode(record.value)
                    published[message.session, message.turn].append(message)
    return published
