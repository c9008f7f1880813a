"""What is computed together in the attention of a batch, and where keys and values lie: planned once for all layers.

The same bits, whatever the company. A product's last bits depend on the shapes it is computed in. So a position p is
always computed in one and the same shape, whichever tokens come with it: among the `step` positions of its group
(p - p % step and on; missing ones are padded), against the keys up to the end of its block of 64 (later ones masked).
Groups that see as many keys are computed in one call, each as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK
from stages.llm.models.steps import Place

ROWS = 4
"""Query rows (positions x query heads of a KV head) that are computed together at least."""

FEW = 8
"""Tokens of a span that is computed together with those of others; one of more gives enough work alone."""

GATHERED_BYTES = 1 << 20
"""Keys and values that are gathered at once for several spans: as much as stays in a processor's cache."""


@dataclass(slots=True)
class Tile:
    """Positions `first` to `last` of a span, whole groups, in one block: they see the first `keys` positions."""

    span: Place
    first: int
    last: int
    keys: int


@dataclass(slots=True)
class Call:
    """`groups` of the queries, from `first` on, that are computed at once against `keys` keys.

    `positions` are the first of each group. The keys are each group's own, or all the same one's.
    """

    first: int
    groups: int
    keys: int
    positions: list[int]


@dataclass(slots=True)
class Gathered:
    """Keys and values that are brought together for some calls: those of the blocks in `tables`, [sequences, blocks].

    `rows` says for each layer where they lie in the store, [2 * sequences * heads * blocks], see `Ragged.read`.
    """

    tables: list[Sequence[int]]
    calls: list[Call]
    rows: Sequence[Tensor]


@dataclass(slots=True)
class Layout:
    """How the queries of a batch are computed in layers of so many heads.

    `gather` picks the queries, [groups, KV heads, heads / KV heads * step], from the batch, [T, heads], and `scatter`
    the results of the batch from those.
    """

    step: int
    fold: int
    groups: int
    gathered: list[Gathered]
    gather: Tensor
    scatter: Tensor
    _masks: dict[tuple[int, int | None], list[Tensor]] = field(default_factory=dict)

    def masks(self, number: int, window: int | None, dtype: torch.dtype) -> list[Tensor]:
        """What the calls of `gathered[number]` add to the scores, [groups, 1, fold * step, keys] each."""
        known = self._masks.get((number, window))
        if known is None:
            device = self.gather.device
            known = [_mask(call, self.step, self.fold, window, dtype, device) for call in self.gathered[number].calls]
            self._masks[number, window] = known
        return known


class Ragged:
    """The batch as the attention sees it: its spans, in `rows` rows (those beyond the spans are padding).

    `store` holds the keys and values of all, [blocks, layers, 2, heads, BLOCK, size].
    """

    def __init__(self, spans: Sequence[Place], rows: int, store: Tensor) -> None:
        self.spans = spans
        self.rows = rows
        self.store = store
        self._count = sum(span.count for span in spans)
        self._lines = store.view(-1, store.shape[5])
        self._pieces = store.view(-1, BLOCK * store.shape[5])
        self._places = [layer.unbind(0) for layer in self._written().unbind(0)]
        self._layouts: dict[tuple[int, int], Layout] = {}

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the batch's `keys` and `values`, [heads, T, size], of one layer."""
        size = self.store.shape[5]
        for kind, new in enumerate((keys, values)):
            lines = new.transpose(0, 1)[: self._count].reshape(-1, size)
            self._lines.index_copy_(0, self._places[layer][kind], lines)

    def read(self, layer: int, group: Gathered) -> tuple[Tensor, Tensor]:
        """The keys and the values of some sequences, in one layer: [sequences, heads, positions, size] each."""
        shape = (2, len(group.tables), self.store.shape[3], -1, self.store.shape[5])
        keys, values = self._pieces.index_select(0, group.rows[layer]).view(shape).unbind(0)
        return keys, values

    def layout(self, heads: int, kv_heads: int) -> Layout:
        """The layout for layers with so many heads."""
        known = self._layouts.get((heads, kv_heads))
        if known is None:
            known = self._layouts[heads, kv_heads] = _Planner(self, heads, kv_heads).layout()
        return known

    def _written(self) -> Tensor:
        """Where the new tokens' lines are in the store, [layers, 2, T * heads]."""
        _, layers, _, heads, _, _ = self.store.shape
        each = layers * 2 * heads * BLOCK
        places = [
            span.blocks[position // BLOCK] * each + position % BLOCK
            for span in self.spans
            for position in range(span.start, span.start + span.count)
        ]
        lines = torch.tensor(places)[:, None] + BLOCK * _planes(layers, heads)[:, :, None]
        return lines.flatten(2).to(self.store.device)


class _Planner:
    """Puts the spans of a batch into a `Layout`."""

    def __init__(self, ragged: Ragged, heads: int, kv_heads: int) -> None:
        self._ragged, self._heads, self._kv_heads = ragged, heads, kv_heads
        self._step = max(1, ROWS * kv_heads // heads)
        self._sources: list[int] = []
        self._targets = [0] * ragged.rows
        self._gathered: list[Gathered] = []

    def layout(self) -> Layout:
        """What is computed together: long spans each alone, short ones by the number of keys they see."""
        short: dict[int, list[Tile]] = {}
        for span in self._ragged.spans:
            tiles = self._tiles(span)
            if span.count > FEW or len(self._ragged.spans) == 1:
                self._gather([tiles[-1]], [self._call([tile]) for tile in tiles])
                continue
            for tile in tiles:
                short.setdefault(tile.keys, []).append(tile)
        for keys, tiles in short.items():
            tiles.sort(key=lambda tile: tile.first - tile.last)
            each = self._ragged.store.shape[3] * 2 * keys * self._ragged.store.shape[5] * self._ragged.store.itemsize
            most = max(1, GATHERED_BYTES // each)
            for at in range(0, len(tiles), most):
                self._together(tiles[at : at + most])
        return self._finished()

    def _together(self, tiles: list[Tile]) -> None:
        """The first groups of all `tiles` in one call, then the second ones of those that have two, and so on."""
        if len(tiles) == 1:
            self._gather(tiles, [self._call(tiles)])
            return
        calls = []
        for first in range(0, tiles[0].last - tiles[0].first, self._step):
            there = [
                Tile(tile.span, tile.first + first, tile.first + first + self._step, tile.keys)
                for tile in tiles
                if tile.first + first < tile.last
            ]
            calls.append(self._call(there))
        self._gather(tiles, calls)

    def _tiles(self, span: Place) -> list[Tile]:
        """The groups of `span`, cut where blocks of keys begin."""
        end = span.start + span.count
        first, last = span.start - span.start % self._step, end + -end % self._step
        tiles = []
        while first < last:
            keys = first - first % BLOCK + BLOCK
            tiles.append(Tile(span, first, min(last, keys), keys))
            first = keys
        return tiles

    def _call(self, tiles: list[Tile]) -> Call:
        """The queries of `tiles`, which come next."""
        first = len(self._sources) // self._step
        positions: list[int] = []
        for tile in tiles:
            span, end = tile.span, tile.span.start + tile.span.count
            for position in range(max(tile.first, span.start), min(tile.last, end)):
                self._targets[span.row + position - span.start] = len(self._sources) + position - tile.first
            wanted = range(tile.first, tile.last)
            self._sources += [span.row + min(max(p, span.start), end - 1) - span.start for p in wanted]
            positions += range(tile.first, tile.last, self._step)
        return Call(first, len(positions), tiles[0].keys, positions)

    def _gather(self, tiles: list[Tile], calls: list[Call]) -> None:
        """Calls that need the keys of `tiles`."""
        tables = [tile.span.blocks[: tile.keys // BLOCK] for tile in tiles]
        _, layers, _, heads, _, _ = self._ragged.store.shape
        blocks = torch.tensor(tables)[:, None] * (layers * 2 * heads)
        rows = _planes(layers, heads)[:, :, None, :, None] + blocks
        self._gathered.append(Gathered(tables, calls, rows.view(layers, -1).to(self._ragged.store.device).unbind(0)))

    def _finished(self) -> Layout:
        heads, kv_heads, step, device = self._heads, self._kv_heads, self._step, self._ragged.store.device
        gather, scatter = _picks(tuple(self._sources), tuple(self._targets), step, heads, kv_heads, device)
        return Layout(step, heads // kv_heads, len(self._sources) // step, self._gathered, gather, scatter)


@lru_cache(maxsize=8)
def _planes(layers: int, heads: int) -> Tensor:
    """The number of each head's keys and values within a block, [layers, 2, heads]."""
    return torch.arange(layers * 2 * heads).view(layers, 2, heads)


@lru_cache(maxsize=64)
def _picks(
    sources: tuple[int, ...], targets: tuple[int, ...], step: int, heads: int, kv_heads: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """`gather` and `scatter` of a layout; small batches have the same again and again."""
    groups = len(sources) // step
    by_head = torch.arange(heads).view(1, kv_heads, heads // kv_heads, 1)
    gather = torch.tensor(sources).view(groups, 1, 1, step) * heads + by_head
    places = torch.arange(gather.numel()).view(gather.shape).permute(0, 3, 1, 2).reshape(groups * step, heads)
    scatter = places[torch.tensor(targets)]
    return gather.flatten().to(device), scatter.flatten().to(device)


def _mask(call: Call, step: int, fold: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where a query may look, else minus infinity."""
    queries = torch.tensor(call.positions, device=device)[:, None, None] + torch.arange(step, device=device)[:, None]
    keys = torch.arange(call.keys, device=device)
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
    return mask[:, None].expand(-1, fold, -1, -1).reshape(call.groups, 1, fold * step, call.keys)
