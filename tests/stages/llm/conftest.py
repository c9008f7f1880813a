from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.llm.batch import Batch
from stages.llm.cache.disk import DiskCache
from stages.llm.models.model import LoadedModel
from stages.llm.scheduler import Outcome
from tests.stages.llm.disks import ALWAYS, DEADLINE_S, LARGE, Make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files go."""
    return tmp_path / "cache" / "kv"


@pytest.fixture
def make(folder: Path, model: LoadedModel) -> Iterator[Make]:
    """Open a tier in the folder; all are closed in the end."""
    opened = []

    def open_one(
        limit: int = LARGE, *, token_s: float = ALWAYS, draft: LoadedModel | None = None, path: Path = folder
    ) -> DiskCache:
        tier = DiskCache(path, limit, model, draft)
        tier.open(token_s)
        opened.append(tier)
        return tier

    yield open_one
    for tier in opened:
        tier.close(DEADLINE_S)


@pytest.fixture(autouse=True)
def _nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a batch has nothing to do, and at its end, no sequence holds a block, and the pool's counts agree."""
    step, close = Batch.step, Batch.close

    def check(batch: Batch) -> None:
        batch.pool.check()
        assert batch.pool.available == batch.pool.count

    def checked_step(batch: Batch) -> list[Outcome]:
        outcomes = step(batch)
        if batch.idle:
            check(batch)
        return outcomes

    def checked_close(batch: Batch) -> None:
        close(batch)
        check(batch)

    monkeypatch.setattr(Batch, "step", checked_step)
    monkeypatch.setattr(Batch, "close", checked_close)
