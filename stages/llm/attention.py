"""Attention over a ragged batch: many sequences in one row of tokens, each seeing its own past and nothing else.

Registered with transformers as an attention implementation; the batch reaches it as a keyword argument of `model(...)`.

The same bits, whatever the company. A product's last bits depend on the shapes it is computed in. So a position p is
always computed in one and the same shape, whichever tokens come with it: among the `step` positions of its group
(p - p % step and on; missing ones are padded), against the keys up to the end of its block of 64 (later ones masked).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from stages.llm.kv import BLOCK, SequenceKV

NAME = "penstock"
ROWS = 4
"""Query rows (positions x query heads of a KV head) that are computed together at least."""


@dataclass(frozen=True, slots=True)
class Span:
    """`count` new tokens of one sequence, from position `start` on, in the batch from row `row` on."""

    kv: SequenceKV
    start: int
    count: int
    row: int


@dataclass(slots=True)
class Tile:
    """Groups `first` to `last` of the batch: queries of one span in one block, and the `keys` that block sees."""

    span: Span
    first: int
    last: int
    position: int
    keys: int


@dataclass(slots=True)
class Layout:
    """Where everything is, the same in all layers of one shape, so made once for a batch.

    `gather` picks the queries ([groups, KV heads, heads / KV heads * step]) from the batch, [T, heads], and `scatter`
    the results of the batch from those.
    """

    step: int
    groups: int
    tiles: list[Tile]
    gather: Tensor
    scatter: Tensor
    masks: dict[int | None, list[Tensor]] = field(default_factory=dict)


class Ragged:
    """The batch as the attention sees it: its spans, in `rows` rows (those beyond the spans are padding)."""

    def __init__(self, spans: Sequence[Span], rows: int) -> None:
        self.spans = spans
        self.rows = rows
        self._layouts: dict[tuple[int, int], Layout] = {}

    def layout(self, heads: int, kv_heads: int, device: torch.device) -> Layout:
        """The layout for layers with so many heads."""
        known = self._layouts.get((heads, kv_heads))
        if known is None:
            known = self._layouts[heads, kv_heads] = _layout(self.spans, self.rows, heads, kv_heads, device)
        return known


def ragged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    ragged: Ragged,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend each span to its own sequence; store the new keys and values first.

    Shapes: query [1, H, T, d]; key, value [1, KV heads, T, d]; the result [1, T, H, d]. The queries are regrouped to
    [groups, KV heads, H / KV heads * step, d], so that a tile is one call for all its heads and positions.
    """
    _refuse_unknown(module, attention_mask, sliding_window, others)
    heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[3]
    plan = ragged.layout(heads, kv_heads, query.device)
    queries = query.transpose(1, 2).reshape(-1, size)
    regrouped = queries.index_select(0, plan.gather).view(plan.groups, kv_heads, -1, size)
    masks = plan.masks.get(sliding_window)
    if masks is None:
        fold = heads // kv_heads
        masks = [_mask(tile, plan.step, fold, sliding_window, query) for tile in plan.tiles]
        plan.masks[sliding_window] = masks
    stores = _store(module.layer_idx, ragged.spans, key[0], value[0])
    results = []
    for tile, mask in zip(plan.tiles, masks, strict=True):
        keys, values = stores[tile.span.row]
        shape = (tile.last - tile.first, kv_heads, tile.keys, -1)
        results.append(
            scaled_dot_product_attention(
                regrouped[tile.first : tile.last],
                keys[None, :, : tile.keys].expand(shape),
                values[None, :, : tile.keys].expand(shape),
                attn_mask=mask,
                scale=scaling,
            )
        )
    result = torch.cat(results).view(-1, value.shape[3])
    return result.index_select(0, plan.scatter).view(1, ragged.rows, heads, -1), None


def _store(layer: int, spans: Sequence[Span], keys: Tensor, values: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Write the new keys and values of all spans; the stores by the spans' rows."""
    return {
        span.row: span.kv.write(
            layer, span.start, keys[:, span.row : span.row + span.count], values[:, span.row : span.row + span.count]
        )
        for span in spans
    }


def _layout(spans: Sequence[Span], rows: int, heads: int, kv_heads: int, device: torch.device) -> Layout:
    step = max(1, ROWS * kv_heads // heads)
    tiles: list[Tile] = []
    sources: list[int] = []
    targets = [0] * rows
    for span in spans:
        end = span.start + span.count
        first, last = span.start - span.start % step, end + -end % step
        tiles += _tiles(span, first, last, step, len(sources) // step)
        for position in range(span.start, end):
            targets[span.row + position - span.start] = len(sources) + position - first
        sources += [span.row + min(max(p, span.start), end - 1) - span.start for p in range(first, last)]
    groups = len(sources) // step
    by_head = torch.arange(heads).view(1, kv_heads, heads // kv_heads, 1)
    gather = torch.tensor(sources).view(groups, 1, 1, step) * heads + by_head
    places = torch.arange(gather.numel()).view(gather.shape).permute(0, 3, 1, 2).reshape(groups * step, heads)
    scatter = places[torch.tensor(targets)]
    return Layout(step, groups, tiles, gather.flatten().to(device), scatter.flatten().to(device))


def _tiles(span: Span, first: int, last: int, step: int, group: int) -> list[Tile]:
    """The positions `first` to `last` of `span`, from the batch's `group` on, cut where blocks of keys begin."""
    tiles = []
    while first < last:
        keys = first - first % BLOCK + BLOCK
        upper = min(last, keys)
        tiles.append(Tile(span, group, group + (upper - first) // step, first, keys))
        group += (upper - first) // step
        first = upper
    return tiles


def _mask(tile: Tile, step: int, fold: int, window: int | None, like: Tensor) -> Tensor:
    """What to add to the scores, [groups, 1, fold * step, keys]: 0 where a query may look, else minus infinity."""
    queries = torch.arange(tile.position, tile.position + (tile.last - tile.first) * step, device=like.device)
    keys = torch.arange(tile.keys, device=like.device)
    hidden = keys > queries[:, None]
    if window is not None:
        hidden |= keys <= queries[:, None] - window
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))
    mask = mask.view(tile.last - tile.first, 1, 1, step, tile.keys)
    return mask.expand(-1, -1, fold, -1, -1).reshape(tile.last - tile.first, 1, fold * step, tile.keys)


def _refuse_unknown(module: Any, attention_mask: Tensor | None, window: int | None, others: dict[str, Any]) -> None:
    """A model that asks for more than this attention computes would answer wrongly without a word."""
    asked = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if window is None and isinstance(getattr(module, "sliding_window", None), int):
        asked.append("a window that only its mask knows of")
    if attention_mask is not None:
        asked.append("attention_mask")
    if others.get("is_causal") is False:
        asked.append("is_causal=False")
    if asked:
        raise NotImplementedError(f"attention with {', '.join(asked)}")


def register() -> None:
    """Make `NAME` known to transformers. No mask function goes with it, so the library builds no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, ragged_attention)
