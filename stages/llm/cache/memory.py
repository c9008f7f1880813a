"""The numbers in a pool's blocks: the model's keys and values, and the draft's. Knows not who uses a block."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from stages.llm.cache.kv import BLOCK, Kept, Shape, blocks_for


class Memory:
    """`count` blocks of `shape` in `store`, and as many of the `draft` model's, if there is one.

    Each store is [blocks, layers, 2, heads, BLOCK, size].
    """

    def __init__(self, count: int, shape: Shape, draft: Shape | None) -> None:
        self.store = shape.store(count)
        self.draft: Tensor | None = draft.store(count) if draft else None
        self._drafted = [0] * count
        self._clean = bytearray(count)

    def hand_out(self, block: int) -> None:
        """`block` begins anew: what is masked must be a number, so memory that was never written is cleared."""
        if not self._clean[block]:
            self.store[block].zero_()
            if self.draft is not None:
                self.draft[block].zero_()
            self._clean[block] = True
        self._drafted[block] = 0

    def spoiled(self, block: int) -> None:
        """What is in `block` may be no numbers."""
        self._clean[block] = False

    def copy(self, source: int, target: int, count: int) -> None:
        """Have in `target` what is in `source`, of which `count` positions are of use."""
        self.store[target].copy_(self.store[source])
        if self.draft is not None:
            self.draft[target].copy_(self.draft[source])
        self._drafted[target] = min(self._drafted[source], count)

    def note_drafted(self, block: int, count: int) -> None:
        """The draft has computed the first `count` positions of `block`."""
        self._drafted[block] = max(self._drafted[block], count)

    def drafted_of(self, blocks: Sequence[int]) -> int:
        """How many positions of these `blocks`, from the first on, the draft has computed."""
        drafted = 0
        for block in blocks:
            drafted += self._drafted[block]
            if self._drafted[block] < BLOCK:
                break
        return drafted

    def read(self, blocks: Sequence[int], ids: Sequence[int], drafted: int, *, used: float | None = None) -> Kept:
        """What is in `blocks` now, not copied: the keys and values of `ids`, the first of them also the draft's."""
        own = [self.store[block] for block in blocks]
        drafted = min(drafted, len(ids)) if self.draft is not None else 0
        draft = [self.draft[block] for block in blocks[: blocks_for(drafted)]] if self.draft is not None else []
        return Kept(tuple(ids), own, draft, drafted, time.time() if used is None else used)

    def write(self, block: int, kept: Kept, number: int) -> None:
        """Have in `block` what stands in block `number` of `kept`."""
        self.store[block].copy_(kept.blocks[number])
        if self.draft is not None and number < len(kept.draft):
            self.draft[block].copy_(kept.draft[number])
            self._drafted[block] = within(kept.drafted, number)


def within(positions: int, number: int) -> int:
    """How many of the first `positions` are in block `number`."""
    return max(0, min(BLOCK, positions - number * BLOCK))
