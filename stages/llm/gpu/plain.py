"""The same attention in plain torch, over the same store and tables: where there is no Triton, and to check it by.

Everything is computed in float32, one sequence after another: slow, and as clear as it can be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK, blocks_for
from stages.llm.gpu.tables import Tables
from stages.llm.models.steps import Place

PIECE = 128
"""Queries of a sequence that are computed at once: their scores take memory."""


def write(store: Tensor, keys: Tensor, values: Tensor, tables: Tables) -> None:
    """Put the new keys and values ([T, KV heads, d]) where they belong; see `launch.write`."""
    slots = tables.slots[: tables.used].long()
    blocks, within = slots // BLOCK, slots % BLOCK
    store[blocks, 0, :, within] = keys[: tables.used].to(store.dtype)
    store[blocks, 1, :, within] = values[: tables.used].to(store.dtype)


def attend(
    query: Tensor,
    store: Tensor,
    tables: Tables,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attend each query to its own sequence; see `launch.attend`. Rows of no sequence are zeros."""
    result = torch.zeros(query.shape, dtype=query.dtype, device=query.device)
    for number, place in enumerate(tables.places):
        if place.start < 0:
            continue
        blocks = tables.blocks[number, : blocks_for(place.start + place.count)].long()
        keys, values = store[blocks].permute(1, 2, 0, 3, 4).flatten(2, 3).float()
        for at in range(0, place.count, PIECE):
            piece = Place(place.row + at, min(PIECE, place.count - at), place.start + at, place.blocks)
            rows = slice(piece.row, piece.row + piece.count)
            result[rows] = _attend(query[rows].float(), keys, values, piece, scaling, window, softcap).to(query.dtype)
    return result


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, piece: Place, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """Queries [n, H, d] of one sequence, keys and values [KV heads, positions, d]; [n, H, d]."""
    end = piece.start + piece.count
    count, heads, size = query.shape
    grouped = query.view(count, keys.shape[0], -1, size)
    scores = torch.einsum("qhgd,hkd->hgqk", grouped, keys[:, :end]) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    queries = torch.arange(piece.start, end, device=query.device)[:, None]
    positions = torch.arange(end, device=query.device)
    hidden = positions > queries
    if window is not None:
        hidden |= positions <= queries - window
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("hgqk,hkd->qhgd", weights, values[:, :end]).reshape(count, heads, size)
