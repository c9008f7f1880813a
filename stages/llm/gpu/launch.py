"""Launch the kernels of `kernels.py` for one layer of a batch.

Shapes: query [T, H, d]; keys, values [T, KV heads, d]; the result [T, H, d]. The store of a layer is
[blocks, 2 (keys, values), KV heads, BLOCK, d]. All tables are int32.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK
from stages.llm.gpu import kernels
from stages.llm.gpu.tables import SPLIT, Tables

LOG2E = 1.4426950408889634

ENOUGH = 2
"""Programs for each multiprocessor that keep it busy; with so many, nothing is gained by splitting contexts."""


class Tiling(NamedTuple):
    """How a program is cut: query `rows` (positions x query heads of a KV head), its warps, and the blocks under way.

    `fold` is the number of query heads of a KV head, as a power of two.
    """

    rows: int
    fold: int
    warps: int
    stages: int

    @property
    def positions(self) -> int:
        """Query positions of a program."""
        return self.rows // self.fold


def tiling(group: int, size: int, dtype: torch.dtype, shared: int) -> Tiling:
    """How to cut for so many query heads of a KV head, of that head size, with so many bytes of shared memory.

    It depends on the model and the GPU alone, never on a batch. 64 rows leave single tokens of a bfloat16 model bound
    by memory (64 operations a byte; an H200 can do 200), and a prompt reads its keys a quarter as often as with 16.
    float32 is computed without tensor cores, so there the fewest rows are taken. With these numbers the compiler finds
    room for everything in registers (seven shapes, compute capability 9.0; on 8.0 all but 8 bytes).
    """
    fold, padded = _power(group), padded_size(size)
    rows = 16 if dtype == torch.float32 else 64 if padded <= 128 else 32
    blocks = 2 * BLOCK * padded * dtype.itemsize
    free = shared - rows * (padded + BLOCK) * dtype.itemsize
    return Tiling(max(rows, fold), fold, 8 if padded >= 128 else 4, max(1, min(4, free // blocks)))


def padded_size(size: int) -> int:
    """The head size that is computed with: a power of two, and 16 at least, as matrix products need."""
    return _power(max(size, 16))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


@functools.cache
def machine(device: torch.device) -> tuple[int, int]:
    """Bytes of shared memory that a program may take, and multiprocessors."""
    if device.type == "cpu":  # the interpreter
        return 1 << 17, 1
    known = torch.cuda.get_device_properties(device)
    return known.shared_memory_per_block_optin, known.multi_processor_count


def write(store: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Put the new keys and values into their `slots` ([T]: block x BLOCK + place) of the layer's `store`."""
    size = keys.shape[2]
    kernels.write[(keys.shape[0], keys.shape[1])](
        store,
        keys,
        values,
        slots,
        store.shape[0] * BLOCK,
        *keys.stride()[:2],
        *values.stride()[:2],
        *store.stride()[:4],
        SIZE=size,
        PADDED=padded_size(size),
        BLOCK=BLOCK,
        num_warps=1,
        enable_fp_fusion=False,
    )


def attend(
    query: Tensor,
    store: Tensor,
    tables: Tables,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    beside: bool | None = None,
    cut: Tiling | None = None,
) -> Tensor:
    """Attend each query to its own sequence.

    Args:
        query: [T, H, d], of any strides but the last.
        store: The layer's.
        tables: Where everything is.
        scaling: What scores are multiplied by.
        window: Positions that a query sees, its own the last.
        softcap: Scores are bent to stay between minus and plus this (Gemma 2).
        beside: Whether splits of a context are computed beside each other; None: where too little else is.
        cut: How programs are cut; None: as `tiling` says.
    """
    rows, heads, size = query.shape
    kv_heads = store.shape[2]
    shared, processors = machine(query.device)
    cut = cut or tiling(heads // kv_heads, size, query.dtype, shared)
    tiles = tables.tiles(cut.positions)
    splits = -(-tables.width * BLOCK // SPLIT)
    if beside is None:
        beside = splits > 1 and tiles.shape[0] * kv_heads < ENOUGH * processors
    result = query.new_empty((rows, heads, size))
    parts, sums = _parts(query, splits if beside else 0)
    scale = 2 * scaling / softcap if softcap else scaling
    kernels.attend[(tiles.shape[0], kv_heads, splits if beside else 1)](
        result,
        parts,
        sums,
        query,
        store,
        tables.blocks,
        tiles,
        scale * LOG2E,
        (softcap or 0.0) * LOG2E,
        window or 0,
        tables.blocks.stride(0),
        *query.stride()[:2],
        *store.stride()[:4],
        splits,
        GROUP=heads // kv_heads,
        FOLD=cut.fold,
        ROWS=cut.rows,
        SIZE=size,
        PADDED=padded_size(size),
        BLOCK=BLOCK,
        SPLIT=SPLIT,
        CAPPED=softcap is not None,
        WINDOWED=window is not None,
        BESIDE=beside,
        num_warps=cut.warps,
        num_stages=cut.stages,
        enable_fp_fusion=False,
    )
    if beside:
        _reduce(result, parts, sums, tables, window, splits)
    return result


def _parts(query: Tensor, splits: int) -> tuple[Tensor, Tensor]:
    """Room for the results of the splits and their weights' maxima and sums; a place in memory where there are none."""
    rows, heads, size = query.shape
    shape = (rows, heads, splits) if splits else (1, 1, 1)
    return (
        query.new_empty((*shape, size if splits else 1), dtype=torch.float32),
        query.new_empty((*shape, 2), dtype=torch.float32),
    )


def _reduce(result: Tensor, parts: Tensor, sums: Tensor, tables: Tables, window: int | None, splits: int) -> None:
    """Put the splits' results together."""
    rows, heads, size = result.shape
    kernels.reduce[(rows, heads)](
        result,
        parts,
        sums,
        tables.positions,
        window or 0,
        splits,
        SIZE=size,
        PADDED=padded_size(size),
        SPLIT=SPLIT,
        WINDOWED=window is not None,
        num_warps=1,
        enable_fp_fusion=False,
    )
