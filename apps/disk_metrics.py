"""What the tier on disk has counted, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from stages.llm.cache.disk import Counts

TEXTS = {
    "hits": "Prompts whose beginning was read from disk",
    "loaded_tokens": "Tokens of prompts that were not computed for that",
    "loaded_bytes": "Bytes of keys and values read for that",
    "written": "Sessions' keys and values written",
    "written_bytes": "Bytes written for that",
    "lost": "Sessions not written because too much was waiting",
    "damaged": "Files that were refused and removed",
}


class DiskCollector(Collector):
    """Tells `counts` as they are when it is asked."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One counter for each."""
        for name, text in TEXTS.items():
            yield CounterMetricFamily(f"penstock_llm_disk_{name}", text, value=getattr(self._counts, name))
