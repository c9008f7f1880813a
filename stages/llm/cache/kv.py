"""What a model keeps of the tokens it has computed: their keys and values, in blocks of 64 positions.

One block holds all layers' keys and values of its positions, so that it is one value everywhere: in the pool (see
`blocks.py`), and in the tiers below. Knows no sequence.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

BLOCK = 64
"""Positions in a block, and the unit of attention (see `models/attention.py`)."""


class Shape(NamedTuple):
    """What is kept of a token: in each of `layers` a key and a value, of `size` numbers for each of `heads`."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def block(self) -> tuple[int, int, int, int, int]:
        """A block: [layers, 2 (keys, values), heads, BLOCK, size]."""
        return self.layers, 2, self.heads, BLOCK, self.size

    @property
    def token_bytes(self) -> int:
        """Memory for one token."""
        return self.layers * 2 * self.heads * self.size * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """Memory for one block."""
        return BLOCK * self.token_bytes

    def store(self, blocks: int) -> Tensor:
        """Room for so many blocks, [blocks, *block]. Not cleared: on a processor no memory is taken before it is used.

        Raises:
            RuntimeError: there is not so much memory.
        """
        return torch.empty((blocks, *self.block), dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class Kept:
    """The keys and values of exactly these `ids`, outside the pool, and when they were of use last (`time.time`).

    `blocks` are the model's ([layers, 2, heads, BLOCK, size] each), as many as the ids need, and `draft` the draft's,
    which has computed the first `drafted` ids.
    """

    ids: tuple[int, ...]
    blocks: list[Tensor]
    draft: list[Tensor] = field(default_factory=list)
    drafted: int = 0
    used: float = field(default_factory=time.time)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(block.nbytes for block in (*self.blocks, *self.draft))

    def copied(self) -> Kept:
        """The same in the host's memory, and no longer the pool's."""
        return replace(
            self,
            blocks=[block.to("cpu", copy=True) for block in self.blocks],
            draft=[block.to("cpu", copy=True) for block in self.draft],
        )


class Tier(Protocol):
    """A slower place below the pool. `disk.py` is one. Neither `put` nor `take` may wait for a write.

    A scope is a session of a tenant: one never gets what is another's.
    """

    def put(self, scope: str, kept: Kept) -> None:
        """Have what the pool has no room for."""
        ...

    def put_last(self, last: Iterable[tuple[str, Kept]]) -> None:
        """Have what the pool holds when it closes, the latest used first."""
        ...

    def take(self, scope: str, ids: Sequence[int], known: int = 0) -> Kept | None:
        """What there is of the scope, if it is worth having for these `ids`, of which `known` are in the pool."""
        ...


def blocks_for(positions: int) -> int:
    """How many blocks so many positions need."""
    return -(-positions // BLOCK)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return number
    return min(len(one), len(other))
