"""Opening a partition: a stage with a journal goes on where its former owner was cut off, and so does a folding one.

Decides when; what a claim is and what counts of the journal, `journal.py` says, and what is settled, `marks.py`.
"""

from __future__ import annotations

import asyncio
import logging

from pipeline.bus import Bus, Member, Part
from pipeline.errors import BusUnavailable, TopicMismatch
from pipeline.holding import Holding
from pipeline.journal import claim, read_back
from pipeline.marks import Marks
from pipeline.stage import Stage

log = logging.getLogger(__name__)


class Takeover:
    """Opens the partitions of `stage`, which has a journal, for work."""

    def __init__(self, stage: Stage, bus: Bus) -> None:
        self._stage = stage
        self._bus = bus

    async def check_route(self) -> None:
        """See that what the stage needs is there.

        Raises:
            TopicMissing: a topic is not.
            TopicMismatch: the journal's partitions do not correspond to those the stage reads.
        """
        reads = self._stage.reads
        partitions = await self._bus.partitions(reads.name)
        if (journal := self._stage.journal) is None:
            return
        if (others := await self._bus.partitions(journal.name)) != partitions:
            raise TopicMismatch(reads.name, partitions, journal.name, others)

    async def note(self, member: Member, part: Part) -> Marks:
        """How far the former owner of `part` had come with each stream, by its last commit."""
        while True:
            try:
                return Marks(await member.note(part))
            except BusUnavailable as error:
                log.warning("%s: what is settled of %s is not known: %s; trying again", self._stage.name, part, error)
                await asyncio.sleep(1.0)

    async def open(self, holding: Holding) -> None:
        """Fence off the former owner, read back what it had published of unfinished turns, and let the work begin."""
        if self._stage.journal is None:
            holding.open()
        while not holding.opened.is_set():
            try:
                await self._read_back(holding)
            except BusUnavailable as error:
                log.warning("%s: %s cannot be taken over: %s; trying again", self._stage.name, holding.part, error)
                await asyncio.sleep(1.0)

    async def _read_back(self, holding: Holding) -> None:
        assert self._stage.journal is not None
        journal = Part(self._stage.journal.name, holding.part.number)
        epoch = await claim(self._bus, journal, self._stage.name)
        backlog = await self._bus.end(holding.part)
        first = await asyncio.shield(holding.first)
        if first.offset >= backlog:
            holding.open(epoch)
            return
        published = await read_back(self._bus, self._stage.journal, journal, since=first.timestamp, epoch=epoch)
        holding.open(epoch, published)
        log.info("%s: %s taken over at offset %d", self._stage.name, holding.part, first.offset)
