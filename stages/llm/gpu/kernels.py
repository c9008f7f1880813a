"""Ragged paged attention as Triton kernels: prompts in pieces, single tokens and guesses in one launch.

The keys and values lie in blocks of 64 positions (PagedAttention: Kwon et al., 2023) and are read where they lie; the
softmax is computed online, block by block (FlashAttention-2: Dao, 2023).

The same bits, whatever the company. A program has always as many rows, and takes the keys in blocks of 64 in their
order. Long contexts are split at fixed positions, and the splits merged in their order, so that it makes no difference
whether programs beside each other or one after another compute them: only that depends on how many there are. What a
row may not see changes no bit of it (its weight is exactly 0, and what was summed before is multiplied by exactly 1).

Not run on a GPU yet: tested in Triton's interpreter, and compiled for GPUs, on machines without one; `python -m
tests.gpu` is the test on a machine with one. What the arguments are is said in `launch.py`.
"""
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False
# ruff: noqa: N803
# `triton.jit` has no types; what it knows when it compiles is written in capitals there. By itself it would compile
# again where a number is 1 or a multiple of 16, which takes seconds: not for numbers that change from step to step.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["capacity"])
def write(  # type: ignore[no-untyped-def]
    store,
    keys,
    values,
    slots,
    capacity,
    key_row_stride,
    key_head_stride,
    value_row_stride,
    value_head_stride,
    block_stride,
    pair_stride,
    head_stride,
    position_stride,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Programs [T, KV heads]: put the new keys and values where they belong. A slot beyond `capacity` is nobody's."""
    row, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < capacity:
        sizes = tl.arange(0, PADDED)
        inside = sizes < SIZE
        at = store + slot // BLOCK * block_stride + head * head_stride + slot % BLOCK * position_stride + sizes
        place = row.to(tl.int64)
        key = tl.load(keys + place * key_row_stride + head * key_head_stride + sizes, mask=inside)
        value = tl.load(values + place * value_row_stride + head * value_head_stride + sizes, mask=inside)
        tl.store(at, key, mask=inside)
        tl.store(at + pair_stride, value, mask=inside)


@triton.jit
def _merge(peak, total, mixed, next_peak, next_total, next_mixed):  # type: ignore[no-untyped-def]
    """Two parts of an online softmax, in this order: maximum and sum of the weights, and the mixed values.

    `fma` by name, and fusing by the compiler turned off: what it fuses may differ from kernel to kernel, and so would
    the bits.
    """
    highest = tl.maximum(peak, next_peak)
    base = tl.where(highest == float("-inf"), 0.0, highest)
    old, new = tl.exp2(peak - base), tl.exp2(next_peak - base)
    total = tl.fma(total, old, next_total * new)
    if len(mixed.shape) == 2:
        mixed = tl.fma(mixed, old[:, None], next_mixed * new[:, None])
    else:
        mixed = tl.fma(mixed, old, next_mixed * new)
    return highest, total, mixed


@triton.jit
def _part(  # type: ignore[no-untyped-def]
    query,
    positions,
    first,
    last,
    store,
    table,
    scale,
    cap,
    window,
    block_stride,
    pair_stride,
    position_stride,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
):
    """The online softmax over the keys from `first` to `last`, in base 2; as `_merge` takes it.

    `first` is a multiple of BLOCK. `store` is where the layer's keys of the KV head begin in block 0.
    """
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, PADDED], tl.float32)
    within = tl.arange(0, BLOCK)
    sizes = tl.arange(0, PADDED)
    offsets = within[:, None] * position_stride + sizes[None, :]
    inside = sizes[None, :] < SIZE
    for start in range(first, last, BLOCK):
        at = store + tl.load(table + start // BLOCK).to(tl.int64) * block_stride + offsets
        known = (start + within < last)[:, None] & inside
        keys = tl.load(at, mask=known, other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
        if CAPPED:  # cap x tanh(score / cap), so written that a large score is no inf / inf
            scores = cap - 2 * cap / (tl.exp2(scores) + 1)
        seen = start + within[None, :] <= positions[:, None]
        if WINDOWED:
            seen &= start + within[None, :] > positions[:, None] - window
        scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(highest == float("-inf"), 0.0, highest)
        weights = tl.exp2(scores - base[:, None])
        old = tl.exp2(peak - base)
        total = tl.fma(total, old, tl.sum(weights, 1))
        values = tl.load(at + pair_stride, mask=known, other=0.0)  # what has no weight must still be a number
        mixed = tl.dot(weights.to(values.dtype), values, mixed * old[:, None], input_precision="ieee")
        peak = highest
    return peak, total, mixed


@triton.jit(do_not_specialize=["window", "width", "splits"])
def attend(  # type: ignore[no-untyped-def]
    result,
    parts,
    sums,
    query,
    store,
    tables,
    tiles,
    scale,
    cap,
    window,
    width,
    query_row_stride,
    query_head_stride,
    block_stride,
    pair_stride,
    head_stride,
    position_stride,
    splits,
    GROUP: tl.constexpr,
    FOLD: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
    BESIDE: tl.constexpr,
):
    """Programs [tiles, KV heads, splits]: one tile's queries against one split (BESIDE), or against all in turn.

    A tile is (first row in the batch, positions, first position, row of `tables`). `parts` and `sums` take the splits'
    results, `result` [T, heads, size] that of all of them.
    """
    head = tl.program_id(1)
    tile = tiles + tl.program_id(0) * 4
    row, count, position, sequence = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    end = position + count
    begin = 0
    if WINDOWED:
        begin = tl.maximum(position - window + 1, 0) // BLOCK * BLOCK
    rows, sizes = tl.arange(0, ROWS), tl.arange(0, PADDED)
    offset, member = rows // FOLD, rows % FOLD
    live = (offset < count) & (member < GROUP)
    heads = head * GROUP + member
    places = (row + offset).to(tl.int64)
    inside = live[:, None] & (sizes[None, :] < SIZE)
    queries = tl.load(
        query + (places * query_row_stride + heads * query_head_stride)[:, None] + sizes[None, :],
        mask=inside,
        other=0.0,
    )
    positions = position + offset
    keys = store + head * head_stride
    table = tables + sequence * width
    outputs = places * (tl.num_programs(1) * GROUP) + heads
    if BESIDE:
        split = tl.program_id(2)
        first, last = tl.maximum(begin, split * SPLIT), tl.minimum(end, split * SPLIT + SPLIT)
        if first < last:
            peak, total, mixed = _part(
                queries, positions, first, last, keys, table, scale, cap, window,
                block_stride, pair_stride, position_stride, ROWS, SIZE, PADDED, BLOCK, CAPPED, WINDOWED,
            )  # fmt: skip
            at = outputs * splits + split
            tl.store(parts + at[:, None] * SIZE + sizes[None, :], mixed, mask=inside)
            tl.store(sums + at * 2, peak, mask=live)
            tl.store(sums + at * 2 + 1, total, mask=live)
    else:
        peak = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        mixed = tl.zeros([ROWS, PADDED], tl.float32)
        for start in range(begin // SPLIT * SPLIT, end, SPLIT):
            first, last = tl.maximum(begin, start), tl.minimum(end, start + SPLIT)
            next_peak, next_total, next_mixed = _part(
                queries, positions, first, last, keys, table, scale, cap, window,
                block_stride, pair_stride, position_stride, ROWS, SIZE, PADDED, BLOCK, CAPPED, WINDOWED,
            )  # fmt: skip
            peak, total, mixed = _merge(peak, total, mixed, next_peak, next_total, next_mixed)
        mixed /= tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(result + outputs[:, None] * SIZE + sizes[None, :], mixed, mask=inside)


@triton.jit(do_not_specialize=["window", "splits"])
def reduce(  # type: ignore[no-untyped-def]
    result,
    parts,
    sums,
    positions,
    window,
    splits,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOWED: tl.constexpr,
):
    """Programs [T, heads]: merge the splits of one query, in their order. A row at position -1 has none."""
    row, head = tl.program_id(0), tl.program_id(1)
    position = tl.load(positions + row)
    begin = 0
    if WINDOWED:
        begin = tl.maximum(position - window + 1, 0) // SPLIT
    sizes = tl.arange(0, PADDED)
    inside = sizes < SIZE
    output = row.to(tl.int64) * tl.num_programs(1) + head
    peak, total = float("-inf"), 0.0
    mixed = tl.zeros([PADDED], tl.float32)
    for split in range(begin, (position + SPLIT) // SPLIT):
        at = output * splits + split
        next_mixed = tl.load(parts + at * SIZE + sizes, mask=inside, other=0.0)
        peak, total, mixed = _merge(peak, total, mixed, tl.load(sums + at * 2), tl.load(sums + at * 2 + 1), next_mixed)
    tl.store(result + output * SIZE + sizes, mixed / tl.where(total == 0.0, 1.0, total), mask=inside)
