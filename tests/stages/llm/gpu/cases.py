"""Ragged batches to try attention with, and what plain arithmetic in float64 says of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK
from stages.llm.gpu.tables import Tables, blocks_of, tables_for_step
from stages.llm.models.steps import Place

CPU = torch.device("cpu")
MIXED = ((0, 5), (70, 1), (130, 1), (60, 6), (0, 1))
"""Sequences as (computed, new): a prompt, single tokens, guesses across the end of a block, one that begins."""


@dataclass(frozen=True)
class Case:
    """A layer's attention over `spans` (computed, new), with the rows filled up to `rows`."""

    heads: int = 4
    kv_heads: int = 2
    size: int = 16
    spans: tuple[tuple[int, int], ...] = MIXED
    rows: int = 0
    dtype: torch.dtype = torch.float32
    window: int | None = None
    softcap: float | None = None
    scaling: float = 0.25


CASES = {
    "grouped, with rows of nobody": Case(rows=20),
    "window": Case(spans=((130, 1), (90, 20)), window=24),
    "large scores": Case(softcap=5.0, scaling=300.0),
    "odd sizes, softcap": Case(heads=6, size=12, softcap=5.0),
    "seven heads to one": Case(heads=7, kv_heads=1, size=24),
    "bfloat16": Case(dtype=torch.bfloat16),
    "float16": Case(dtype=torch.float16),
    "several splits": Case(kv_heads=4, spans=((513, 2), (0, 20))),
    "window over splits": Case(spans=((600, 1), (250, 12)), window=300),
}


@dataclass(frozen=True)
class Setting:
    """What a case is tried on: [T, heads, size] queries, keys and values, a store with the past, and the tables."""

    query: Tensor
    keys: Tensor
    values: Tensor
    store: Tensor
    tables: Tables
    past: list[tuple[Tensor, Tensor]]


def setting(case: Case, device: torch.device, seed: int = 0) -> Setting:
    """Draw numbers; blocks lie anywhere, and those of nobody hold what must not be read."""
    drawn, numbers = random.Random(seed), torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=numbers).to(case.dtype)

    counts = [-(-(start + count) // BLOCK) for start, count in case.spans]
    total = sum(counts) + 3
    free = drawn.sample(range(total), total)
    store = torch.full((total, 2, case.kv_heads, BLOCK, case.size), float("nan"), dtype=case.dtype)
    places, past, row = [], [], 0
    for (start, count), need in zip(case.spans, counts, strict=True):
        blocks = [free.pop() for _ in range(need)]
        keys, values = some(case.kv_heads, start, case.size), some(case.kv_heads, start, case.size)
        for position in range(start):
            store[blocks[position // BLOCK], 0, :, position % BLOCK] = keys[:, position]
            store[blocks[position // BLOCK], 1, :, position % BLOCK] = values[:, position]
        places.append(Place(row, count, start, blocks))
        past.append((keys, values))
        row += count
    rows = max(row, case.rows)
    store = store.to(device)
    tables = filled(places, rows, store)
    query = some(case.heads, rows, case.size).to(device).transpose(0, 1)
    keys, values = some(rows, case.kv_heads, case.size).to(device), some(rows, case.kv_heads, case.size).to(device)
    return Setting(query, keys, values, store, tables, past)


def filled(places: list[Place], rows: int, store: Tensor) -> Tables:
    """The tables for `places`."""
    tables = tables_for_step(rows, 1, len(places), blocks_of(places), store)
    tables.fill(places)
    return tables


def expected(case: Case, given: Setting) -> Tensor:
    """The result, [T, heads, size], query by query in float64; zeros for rows of nobody."""
    result = torch.zeros(given.query.shape, dtype=torch.float64)
    fold = case.heads // case.kv_heads
    row = 0
    for (start, count), past in zip(case.spans, given.past, strict=True):
        rows = slice(row, row + count)
        new = given.keys[rows].cpu().transpose(0, 1), given.values[rows].cpu().transpose(0, 1)
        keys, values = (torch.cat(both, 1).double() for both in zip(past, new, strict=True))
        for offset in range(count):
            last = start + offset + 1
            first = max(0, last - case.window) if case.window is not None else 0
            for head in range(case.heads):
                query = given.query[row + offset, head].cpu().double()
                scores = keys[head // fold, first:last] @ query * case.scaling
                if case.softcap is not None:
                    scores = case.softcap * torch.tanh(scores / case.softcap)
                result[row + offset, head] = scores.softmax(0) @ values[head // fold, first:last]
        row += count
    return result
