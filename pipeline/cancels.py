"""Hearing which turns are to be given up."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from pipeline.bus import Bus, Part, Record
from pipeline.errors import BusUnavailable, UndecodableMessage
from pipeline.marks import Id
from pipeline.messages import Cancel
from pipeline.topics import CONTROL

log = logging.getLogger(__name__)

REMEMBERED = 10_000

PATIENCE_S = 3.0
"""How long work waits at most until cancels are heard."""


class Cancels:
    """The turns that were cancelled lately. `heard` is called for each that comes."""

    def __init__(self, bus: Bus, heard: Callable[[Id], None]) -> None:
        self._bus = bus
        self._heard = heard
        self._turns: OrderedDict[Id, None] = OrderedDict()
        self._listening = asyncio.Event()

    def __contains__(self, turn: Id) -> bool:
        return turn in self._turns

    async def listening(self) -> None:
        """Return when every cancel from now on is heard; or after a while, as work must not wait for that for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._listening.wait()

    async def hear(self) -> None:
        """Listen, from now on, until cancelled."""
        part = Part(CONTROL.name, 0)
        while True:
            try:
                async with self._bus.reader({part: None}) as reader:
                    self._listening.set()
                    while True:
                        for record in await reader.poll(limit=500, timeout=5.0):
                            self._take(record)
            except BusUnavailable as error:
                log.warning("cancels cannot be heard: %s; trying again", error)
                await asyncio.sleep(1.0)

    def _take(self, record: Record) -> None:
        try:
            cancel: Cancel = CONTROL.decode(record.value)
        except UndecodableMessage as error:
            log.warning("skipped: %s", error)
            return
        turn = (cancel.session, cancel.turn)
        self._turns[turn] = None
        if len(self._turns) > REMEMBERED:
            self._turns.popitem(last=False)
        self._heard(turn)
