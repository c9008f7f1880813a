"""The keys and values of one sequence, and those of finished ones that a later prompt may begin with.

Knows no model: a layer's store is made when the layer first has something to store. Rejected entries are overwritten,
never erased.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

BLOCK = 64
"""Positions by which a store grows, and the unit of attention (see `attention.py`)."""


class SequenceKV:
    """Keys and values by layer, each of shape [KV heads, positions, size]; positions are a multiple of `BLOCK`.

    `draft` is the same for the draft model, which has computed the first `drafted` tokens. `most` positions will do.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.draft: SequenceKV | None = None
        self.drafted = 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store `keys` and `values` ([KV heads, n, size]) at positions from `start` on; the layer's whole stores."""
        end = start + keys.shape[1]
        stores = []
        for store, new in ((self._keys, keys), (self._values, values)):
            known = store.get(layer)
            if known is None or known.shape[1] < end:
                known = store[layer] = _grown(known, new, end, self.most)
            known[:, start:end] = new
            stores.append(known)
        return stores[0], stores[1]

    def adopt(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Take these as the layer's stores, whole as they are."""
        self._keys[layer], self._values[layer] = keys, values

    def stores(self) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Each layer's number and stores; the draft's are not among them."""
        for layer, keys in self._keys.items():
            yield layer, (keys, self._values[layer])

    @property
    def bytes(self) -> int:
        """Memory held."""
        own = sum(store.nbytes for stores in (self._keys, self._values) for store in stores.values())
        return own + (self.draft.bytes if self.draft else 0)


def rounded(positions: int) -> int:
    """In whole blocks."""
    return -(-positions // BLOCK) * BLOCK


def _grown(known: Tensor | None, like: Tensor, end: int, most: int | None) -> Tensor:
    """A store for at least `end` positions, twice the `known` one. Zeros: what is masked must still be a number."""
    held = 0 if known is None else known.shape[1]
    size = rounded(max(end, 2 * held if most is None else min(2 * held, most)))
    grown = like.new_zeros((like.shape[0], size, like.shape[2]))
    if known is not None:
        grown[:, :held] = known
    return grown


@dataclass(frozen=True, slots=True)
class Kept:
    """What a finished sequence left: the keys and values of exactly these `ids`, and when (`time.time`)."""

    ids: tuple[int, ...]
    kv: SequenceKV
    used: float = field(default_factory=time.time)


class Tier(Protocol):
    """A slower place below the pool. `disk.py` is one. Neither `put` nor `take` may wait for a write."""

    def put(self, scope: str, kept: Kept) -> None:
        """Have what the pool has no room for."""
        ...

    def put_last(self, last: Iterable[tuple[str, Kept]]) -> None:
        """Have what the pool holds when it closes, the latest used first."""
        ...

    def take(self, scope: str, ids: Sequence[int]) -> Kept | None:
        """What there is of the scope, if it is worth having for a prompt of these `ids`."""
        ...


class PrefixPool:
    """The last finished sequence of each scope, at most `limit` bytes, the least recently used dropped first.

    A scope (a session) never sees another's, not even by how long its first token takes. What is dropped for lack of
    room goes to the tier `below`, which is asked for what is not here.
    """

    def __init__(self, limit: int, below: Tier | None = None) -> None:
        self._limit = limit
        self._below = below
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self.bytes = 0

    def put(self, scope: str, ids: Sequence[int], kv: SequenceKV) -> None:
        """Keep `kv`, which holds `ids`, in place of what the scope had."""
        self._drop(scope)
        if not ids:
            return
        self._kept[scope] = Kept(tuple(ids), kv)
        self.bytes += kv.bytes
        if kv.bytes > self._limit:  # too large even alone: the others stay
            self._hand_down(scope)
        while self.bytes > self._limit:
            self._hand_down(next(iter(self._kept)))

    def close(self) -> None:
        """Give everything to the tier below, the latest first: there may be no time for all."""
        if self._below is not None:
            self._below.put_last(reversed(self._kept.items()))
        self._kept.clear()
        self.bytes = 0

    def take(self, scope: str, ids: Sequence[int]) -> tuple[SequenceKV, int]:
        """A store with the first n of `ids`, and n. It leaves the pool; the last of `ids` is never among them."""
        kept = self._kept.get(scope)
        if kept is None and self._below is not None:
            kept = self._below.take(scope, ids)
        shared = 0 if kept is None else common(kept.ids, ids[:-1])
        if kept is None or not shared:
            return SequenceKV(), 0
        self._drop(scope)
        kept.kv.drafted = min(kept.kv.drafted, shared)
        return kept.kv, shared

    def known(self, scope: str, ids: Sequence[int]) -> int:
        """How many of `ids` `take` would find in memory."""
        kept = self._kept.get(scope)
        return 0 if kept is None else common(kept.ids, ids[:-1])

    def _drop(self, scope: str) -> Kept | None:
        kept = self._kept.pop(scope, None)
        if kept is not None:
            self.bytes -= kept.kv.bytes
        return kept

    def _hand_down(self, scope: str) -> None:
        kept = self._drop(scope)
        if kept is not None and self._below is not None:
            self._below.put(scope, kept)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return number
    return min(len(one), len(other))
