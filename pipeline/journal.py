"""Takeover: fence off the former owner of a partition, and read back what it had already published.

A new owner first publishes a *claim* to its partition of the journal, and only then reads the journal up to that claim.
What stands before the claim counts and is gone on from; what a former owner, paused and awake again, publishes behind
it carries a lower epoch and is dropped by every reader. So the cut between two owners is one offset in one log.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.bus import Bus, Headers, Part, Record
from pipeline.errors import UndecodableMessage
from pipeline.headers import CLAIM, EPOCH, TURN, number
from pipeline.messages import Message
from pipeline.topics import Topic

log = logging.getLogger(__name__)

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
    found = number(text)
    return -2 if found is None else found


async def claim(bus: Bus, part: Part, owner: str) -> int:
    """Make the caller the only owner of `part`; the epoch under which it publishes from now on."""
    delivery = await bus.publish(part.topic, b"", key="", headers={CLAIM: owner}, partition=part.number)
    return await delivery


def under(epoch: int, headers: Headers) -> Headers:
    """`headers` of a record that is published under `epoch`."""
    return {**headers, EPOCH: str(epoch)}


async def read_back(bus: Bus, topic: Topic, part: Part, *, since: int, epoch: int) -> Published:
    """What counts in `part` from the time `since` (ms since 1970) up to the claim at offset `epoch`.

    Of a turn with a record that nobody can read, it is what stands before that.

    Raises:
        BusUnavailable: it cannot be read in time.
    """
    start = await bus.offset_at(part, since - CLOCK_SKEW_MS)
    published: defaultdict[tuple[str, str], list[Message]] = defaultdict(list)
    cut: set[str] = set()
    fence = Fence()
    for record in await bus.span(part, start, epoch):
        if not fence.passes(record):
            continue
        try:
            message = topic.decode(record.value)
        except UndecodableMessage as error:
            log.warning("%s at %d: %s", record.part, record.offset, error)
            cut.add(record.headers.get(TURN, ""))
            continue
        if message.turn not in cut:
            published[message.session, message.turn].append(message)
    return published
