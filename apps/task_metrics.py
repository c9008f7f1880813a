"""How many tasks an event loop has, for `/metrics`: those that nobody ends would show there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class TaskCollector(Collector):
    """Counts the tasks of `loop` when it is asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The one gauge."""
        tasks = 0 if self._loop.is_closed() else len(asyncio.all_tasks(self._loop))
        yield GaugeMetricFamily("penstock_tasks", "Tasks of the event loop that have not ended", value=tasks)
