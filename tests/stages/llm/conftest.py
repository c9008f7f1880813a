from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.llm.disk import DiskCache
from stages.llm.model import LoadedModel
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
