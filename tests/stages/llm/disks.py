"""What the tests of the tier on disk have in common."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.llm.cache import kvfile
from stages.llm.cache.disk import LEAST, DiskCache
from stages.llm.cache.kv import Kept
from tests.stages.llm.cache.test_kvfile import computed

DEADLINE_S = 10.0
TOKENS = LEAST + 6
IDS = [*range(7, 7 + TOKENS), 1]
"""A prompt that goes on after what `computed` leaves."""
ALWAYS, NEVER = 1.0, 1e-9
"""What a token takes to compute if reading is to pay, or not to."""
LARGE = 1 << 30

Make = Callable[..., DiskCache]


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def put(tier: DiskCache, scope: str, kept: Kept | None = None) -> Kept:
    """Have something written, and wait for it."""
    kept = kept or computed(TOKENS)
    before = tier.counts.written
    tier.put(scope, kept)
    until(lambda: tier.counts.written > before)
    return kept


def files(folder: Path) -> list[Path]:
    """What lies there, the oldest first."""
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)


class Gate:
    """Stands for a slow disk: each write waits until the gate is `open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        real = kvfile.write

        def slow(*arguments: Any, **named: Any) -> None:
            self.reached.set()
            self.open.wait(DEADLINE_S)
            real(*arguments, **named)

        monkeypatch.setattr(kvfile, "write", slow)
