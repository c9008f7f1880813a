"""What an engine is doing and has done, as plain numbers for the metrics."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stages.llm.guessing.guesses import SpeculationCounts
    from stages.llm.scheduler import Counts

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TOKENS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)


@dataclass
class Histogram:
    """How many values were at most each of `bounds`, and in the last count how many were more; and their `total`."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def saw(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass
class Steps:
    """What steps took, in seconds, and how many tokens were computed in one."""

    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    tokens: Histogram = field(default_factory=lambda: Histogram(TOKENS))

    def saw(self, seconds: float, tokens: int) -> None:
        """One more step."""
        self.seconds.saw(seconds)
        self.tokens.saw(tokens)


class State(NamedTuple):
    """What an engine is doing, and has done since its start.

    Sequences that run and that wait, tokens a second with all places taken, blocks in use as a share of all, bytes that
    are kept though no sequence uses them, and when a place came free last, in seconds since 1970.
    """

    num_requests_running: int
    num_requests_waiting: int
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    kv_cache_usage_perc: float
    prefix_bytes: int
    released_timestamp_seconds: float
    counts: Counts
    steps: Steps
    speculation: SpeculationCounts | None
