"""What a check found, and how to time on a device whose work is only begun when a call returns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

ROUNDS = 20
WARM = 3


class Finding(NamedTuple):
    """What was looked at, what was seen, and whether it is as it must be (None: it is only told)."""

    what: str
    seen: str
    right: bool | None = None


def wait(device: torch.device) -> None:
    """Until the device has done all that was begun."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: torch.device, *, each: int = 1, rounds: int = ROUNDS) -> float:
    """Seconds of a call, the median of some rounds of `each` calls, after a few to warm up."""
    for _ in range(WARM):
        call()
    took = []
    for _ in range(rounds):
        wait(device)
        began = time.perf_counter()
        for _ in range(each):
            call()
        wait(device)
        took.append((time.perf_counter() - began) / each)
    return statistics.median(took)


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that the memory takes and gives, by a copy of `size` bytes."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / timed(lambda: target.copy_(source), device)
