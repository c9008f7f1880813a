"""What the tier on disk counts stands in `/metrics`."""

from __future__ import annotations

from dataclasses import fields

from prometheus_client import CollectorRegistry

from apps.disk_metrics import TEXTS, DiskCollector
from stages.llm.cache.disk import Counts


def test_all_that_is_counted_is_told() -> None:
    """Each count has a name and a text, and is told as it is when asked."""
    counts, registry = Counts(), CollectorRegistry()
    registry.register(DiskCollector(counts))
    counts.hits, counts.loaded_bytes = 2, 700

    assert set(TEXTS) == {field.name for field in fields(Counts)}
    assert registry.get_sample_value("penstock_llm_disk_hits_total") == 2
    assert registry.get_sample_value("penstock_llm_disk_loaded_bytes_total") == 700
    assert registry.get_sample_value("penstock_llm_disk_damaged_total") == 0
