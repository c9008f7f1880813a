"""CUDA graphs of small steps: what is launched for a step, recorded once and replayed with new numbers in one call.

A step of a few tokens is some hundred kernels of a few microseconds each, and Python launches them slower than that. A
graph is recorded for a number of rows and a width of the block tables; a step takes the smallest that it fits, the rest
of which is padding that sees nothing and is stored nowhere. Larger steps keep the GPU busy by themselves.

A graph reads and writes the same memory every time, so it holds for one store alone: a step of another is not replayed.
Everything but `CudaCapture` is tested without a GPU, and nothing was run on one yet. Knows no model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stages.llm.cache.kv import blocks_for
from stages.llm.gpu.tables import Tables, blocks_of, tables_for_step
from stages.llm.models.steps import Place

log = logging.getLogger(__name__)

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Rows of the recorded steps."""

NARROW, WIDER = 4, 8
"""Blocks of the narrowest tables (one split of the attention, so nothing to merge), and how much wider the next are."""

Compute = Callable[[Tables, Tensor], Tensor]
"""(tables, store) -> logits [rows, vocabulary]."""

Call = Callable[[], None]
Capture = Callable[[Call], Call]
"""Records what a call does on the device; what it gives does it again."""


class Bucket(NamedTuple):
    """Steps of at most so many rows, and blocks of a sequence."""

    rows: int
    width: int


class _Recorded(NamedTuple):
    tables: Tables
    replay: Call


class Graphs:
    """Replays small steps of `compute` for sequences of up to `context` positions in `store`.

    A model that cannot be recorded (it waits for the device in the middle, say) goes on without.
    """

    def __init__(self, compute: Compute, store: Tensor, *, context: int, capture: Capture) -> None:
        self._compute, self._store, self._capture = compute, store, capture
        self._widths = widths(blocks_for(context))
        self._recorded: dict[Bucket, _Recorded] = {}
        self._result: Tensor | None = None
        self._cuts: Iterable[int] = ()
        self.broken = False

    @property
    def recorded(self) -> set[Bucket]:
        """What can be replayed by now."""
        return set(self._recorded)

    @torch.inference_mode()
    def warm(self, tell: Callable[[float], None] = lambda _share: None) -> None:
        """Record all; the largest first, for the others find room in its memory. `tell` how much of it is done."""
        buckets = [Bucket(rows, width) for rows in reversed(ROWS) for width in reversed(self._widths)]
        for number, bucket in enumerate(buckets):
            if not self.broken:
                tell(number / len(buckets))
                self._record(bucket)

    @torch.inference_mode()
    def __call__(
        self, ids: Sequence[int], wanted: Sequence[int], places: Sequence[Place], store: Tensor
    ) -> Tensor | None:
        """The logits at the rows `wanted`, [n, vocabulary] in float32; None for a step that is not for a graph."""
        bucket = fitting(len(ids), blocks_of(places), self._widths)
        if bucket is None or self.broken or store.data_ptr() != self._store.data_ptr():
            return None
        recorded = self._recorded.get(bucket) or self._record(bucket)
        if recorded is None or self._result is None:
            return None
        rest = [0] * (bucket.rows - len(ids))
        unwanted = [0] * (bucket.rows - len(wanted))
        recorded.tables.fill(places, {"ids": [*ids, *rest], "wanted": [*wanted, *unwanted]})
        recorded.replay()
        return self._result[: len(wanted)].clone()  # the next step writes there again

    def _record(self, bucket: Bucket) -> _Recorded | None:
        """Record a step of nothing but padding, which changes no key and no value."""
        try:
            result = self._room() if self._result is None else self._result
            tables = self._tables(bucket, self._cuts)

            def step() -> None:
                result[: bucket.rows].copy_(self._compute(tables, self._store))

            recorded = self._recorded[bucket] = _Recorded(tables, self._capture(step))
        except RuntimeError:
            log.warning("steps of this model cannot be recorded; going on without", exc_info=True)
            self.broken = True
            self._recorded.clear()
            return None
        return recorded

    def _room(self) -> Tensor:
        """Learn by a step of the smallest size how large the logits are, and how the kernels cut the rows."""
        tables = self._tables(Bucket(1, 1), ())
        logits = self._compute(tables, self._store)
        self._cuts = tables.cuts
        self._result = torch.empty(ROWS[-1], logits.shape[1], dtype=torch.float32, device=logits.device)
        return self._result

    def _tables(self, bucket: Bucket, cuts: Iterable[int]) -> Tables:
        tables = tables_for_step(bucket.rows, bucket.rows, bucket.rows, bucket.width, self._store, cuts)
        tables.fill([], {"ids": [0] * bucket.rows, "wanted": [0] * bucket.rows})
        return tables


class CudaCapture:
    """Records on a stream of its own. All that it records shares memory, as only one is replayed at a time."""

    def __init__(self) -> None:
        self._memory = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, call: Call) -> Call:
        """Run `call` twice, so that what happens once (kernels are compiled, libraries set up) is over; record it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            call()
            call()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # `thread_local`: other threads may copy blocks or take memory meanwhile
        with torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"):
            call()
        return graph.replay


def widths(most: int) -> list[int]:
    """Widths of tables, in blocks, up to `most`."""
    known = [NARROW]
    while known[-1] < most:
        known.append(known[-1] * WIDER)
    return [*known[:-1], min(known[-1], max(most, 1))]


def fitting(rows: int, width: int, known: Sequence[int]) -> Bucket | None:
    """The smallest bucket that takes so many rows and blocks; None where none does."""
    fitting_rows = [size for size in ROWS if size >= rows]
    fitting_widths = [size for size in known if size >= width]
    return Bucket(fitting_rows[0], fitting_widths[0]) if rows and fitting_rows and fitting_widths else None
