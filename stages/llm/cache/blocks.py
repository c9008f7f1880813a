"""The memory for keys and values: blocks that are free, in use by one or more sequences, or kept for later ones.

A sequence has a table of blocks. Full blocks of confirmed tokens are shared, and never written again; where a text
goes another way inside a block, it goes on in a copy. What no sequence uses any more stays to be found again until its
memory is needed: the least recently used goes first, of a sequence the end before the beginning.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from stages.llm.cache.kv import BLOCK, Kept, Shape, Tier, blocks_for
from stages.llm.cache.memory import Memory, within
from stages.llm.cache.prefixes import PrefixIndex, link, root
from stages.llm.cache.runs import Run, Runs


class BlockTable:
    """Where a sequence's keys and values are: position p in `blocks[p // BLOCK]`.

    `drafted` of its positions the draft model has computed too. `chain` names the text up to each of its full blocks
    (see `prefixes.py`). `pool` is where the blocks are.
    """

    def __init__(self, pool: BlockPool, chain: bytes) -> None:
        self.pool = pool
        self.blocks: list[int] = []
        self.drafted = 0
        self.chain = [chain]

    @property
    def positions(self) -> int:
        """How many tokens there is memory for."""
        return len(self.blocks) * BLOCK


class BlockPool:
    """`count` blocks for a model of that `shape`, and for its `draft`, which uses the same numbers in its own store.

    `fingerprint` tells the model from others. Without `keep` nothing outlives the sequences that use it. What goes for
    lack of room is given to the tier `below`, which is asked for what is not here.
    """

    def __init__(
        self,
        count: int,
        shape: Shape,
        *,
        draft: Shape | None = None,
        fingerprint: str = "",
        keep: bool = True,
        below: Tier | None = None,
    ) -> None:
        self.count = count
        self.block_bytes = shape.block_bytes + (draft.block_bytes if draft else 0)
        self._memory = Memory(count, shape, draft)
        self.index = PrefixIndex()
        self._fingerprint, self._keep, self._below = fingerprint, keep, below
        self._free = list(range(count - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._references = [0] * count
        self._tables: set[BlockTable] = set()
        self._runs = Runs(count)

    @property
    def store(self) -> Tensor:
        """The model's keys and values, [blocks, layers, 2, heads, BLOCK, size]."""
        return self._memory.store

    @property
    def draft(self) -> Tensor:
        """The draft's, by the same numbers."""
        assert self._memory.draft is not None, "there is no draft model"
        return self._memory.draft

    @property
    def positions(self) -> int:
        """How many tokens there is memory for."""
        return self.count * BLOCK

    @property
    def available(self) -> int:
        """Blocks that no sequence uses."""
        return len(self._free) + len(self._cached)

    @property
    def cached_bytes(self) -> int:
        """Memory of what is kept though no sequence uses it."""
        return len(self._cached) * self.block_bytes

    def known(self, tenant: str, ids: Sequence[int]) -> int:
        """How many of `ids` a table would begin with, the last one never among them."""
        full, _, count = self.index.match(root(self._fingerprint, tenant), ids[:-1])
        return len(full) * BLOCK + count

    def missing(self, tenant: str, ids: Sequence[int], positions: int) -> int:
        """How many of the available blocks a table for `ids` takes with room for so many `positions`."""
        full, _, _ = self.index.match(root(self._fingerprint, tenant), ids[:-1])
        return blocks_for(positions) - sum(self._references[block] > 0 for block in full)

    def table(self, tenant: str = "", ids: Sequence[int] = (), session: str = "") -> tuple[BlockTable, int]:
        """A table for a sequence that begins with `ids`, and how many of them it holds; never the last one."""
        chain, wanted = root(self._fingerprint, tenant), ids[:-1]
        full, source, count = self.index.match(chain, wanted)
        held: list[int] = []
        if self._below is not None and wanted:
            kept = self._below.take(_scope(tenant, session), ids, len(full) * BLOCK + count)
            if kept is not None:
                held = self._load(chain, kept)
                full, source, count = self.index.match(chain, wanted)
        table = BlockTable(self, chain)
        self._tables.add(table)
        for number, block in enumerate(full):
            self._use(block)
            table.blocks.append(block)
            table.chain.append(link(table.chain[-1], ids[number * BLOCK : (number + 1) * BLOCK]))
        if count and not self._continue(table, source, count):
            count = 0
        for block in reversed(held):
            self._unuse(block)
        table.drafted = self._memory.drafted_of(table.blocks)
        return table, len(full) * BLOCK + count

    def extend(self, table: BlockTable, positions: int) -> bool:
        """See that `table` has blocks for so many positions. False: there are too few, and nothing has changed."""
        more = blocks_for(positions) - len(table.blocks)
        if more > self.available:
            return False
        table.blocks += [self._take() for _ in range(more)]
        return True

    def confirm(self, table: BlockTable, ids: Sequence[int], computed: int) -> None:
        """The first `computed` of `ids` are certain and computed: full blocks of them can be found from now on."""
        while len(table.chain) * BLOCK <= computed:
            number = len(table.chain) - 1
            part = tuple(ids[number * BLOCK : (number + 1) * BLOCK])
            block = table.blocks[number]
            self._memory.note_drafted(block, within(table.drafted, number))
            self.index.add(block, table.chain[-1], part)
            table.chain.append(link(table.chain[-1], part))

    def release(self, table: BlockTable, ids: Sequence[int] = (), tenant: str = "", session: str = "") -> None:
        """The sequence has ended, or must wait, after it computed exactly `ids`, which can be found from now on."""
        self.confirm(table, ids, len(ids))
        full = len(table.chain) - 1
        if tail := tuple(ids[full * BLOCK :]):
            self.index.add(table.blocks[full], table.chain[-1], tail)
        for number, block in enumerate(table.blocks):
            self._memory.note_drafted(block, within(table.drafted, number))
        if self._below is not None and ids:
            self._remember(_scope(tenant, session), table, tuple(ids))
        self._give(table)

    def discard(self, table: BlockTable) -> None:
        """The sequence has ended, and what it computed must not be used: it is no numbers, say."""
        for block in table.blocks:
            self._forget(block)
            self._memory.spoiled(block)
        self._give(table)

    def close(self) -> None:
        """Give all that is kept to the tier below, the latest first: there may be no time for all."""
        if self._below is not None:
            kept = ((scope, self._kept(run)) for scope, run in self._runs.latest_first())
            self._below.put_last([(scope, one) for scope, one in kept if one is not None])
        self._runs = Runs(self.count)

    def read(self, table: BlockTable, ids: Sequence[int]) -> Kept:
        """A copy of what `table` holds of `ids`, all of which are computed."""
        return self._memory.read(table.blocks[: blocks_for(len(ids))], ids, min(table.drafted, len(ids))).copied()

    def _use(self, block: int) -> None:
        self._references[block] += 1
        self._cached.pop(block, None)

    def _give(self, table: BlockTable) -> None:
        """Drop the table's references, the end first, so that it is also the first to be taken for others."""
        self._tables.remove(table)
        for block in reversed(table.blocks):
            self._unuse(block)
        table.blocks = []

    def _unuse(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block]:
            return
        if self._keep and block in self.index:
            self._cached[block] = None
        else:
            self._forget(block)
            self._free.append(block)

    def _take(self) -> int:
        """A block for one sequence alone; `available` says that there is one. What is masked must be a number."""
        if not self._free:
            oldest = next(iter(self._cached))
            if (due := self._runs.due(oldest)) is not None:
                self._hand_down(*due)
            self._forget(oldest)
            del self._cached[oldest]
            self._free.append(oldest)
        block = self._free.pop()
        self._memory.hand_out(block)
        self._references[block] = 1
        return block

    def _forget(self, block: int) -> None:
        """Nobody finds `block` any more; what it was the end of is not handed down either."""
        self.index.remove(block)
        self._runs.drop(block)

    def _continue(self, table: BlockTable, source: int, count: int) -> bool:
        """Go on after the first `count` positions of `source`: in a copy, or where it has no more in itself."""
        if count == len(self.index[source].ids) < BLOCK:  # so it is no running sequence's
            self._use(source)
            self._forget(source)
            table.blocks.append(source)
            return True
        self._use(source)  # it must not be taken for its own copy
        room = self.available > 0
        if room:
            copy = self._take()
            self._memory.copy(source, copy, count)
            table.blocks.append(copy)
        self._unuse(source)
        return room

    def _remember(self, scope: str, table: BlockTable, ids: tuple[int, ...]) -> None:
        run = Run(table.chain[0], ids, time.time())
        if self._keep:
            self._runs.remember(scope, run, [block for block in table.blocks if block in self.index])
        else:
            self._hand_down(scope, run)

    def _hand_down(self, scope: str, run: Run) -> None:
        kept = self._kept(run)
        if kept is not None and self._below is not None:
            self._below.put(scope, kept.copied())

    def _kept(self, run: Run) -> Kept | None:
        """As much of `run` as is still here."""
        full, tail, count = self.index.match(run.chain, run.ids)
        ids = run.ids[: len(full) * BLOCK + count]
        blocks = [*full, tail] if count else full
        return self._memory.read(blocks, ids, self._memory.drafted_of(blocks), used=run.used) if ids else None

    def _load(self, chain: bytes, kept: Kept) -> list[int]:
        """Have `kept` here again, as much as there is room for; the blocks, which must be given back."""
        held: list[int] = []
        for number in range(len(kept.blocks)):
            part = kept.ids[number * BLOCK : (number + 1) * BLOCK]
            block, count = self.index.best(chain, part)
            if count == len(part):
                self._use(block)
            elif self.available:
                block = self._take()
                self._memory.write(block, kept, number)
                self.index.add(block, chain, part)
            else:
                break
            held.append(block)
            chain = link(chain, part)
        return held

    def check(self) -> None:
        """Raise AssertionError if a block is lost, in two places at once, or held by another number than it counts."""
        used = [block for table in self._tables for block in table.blocks]
        counted = [0] * self.count
        for block in used:
            counted[block] += 1
        assert counted == self._references, "blocks are counted as used by another number than use them"
        places = [*self._free, *self._cached, *set(used)]
        assert sorted(places) == list(range(self.count)), "a block is lost, or in two places"
        assert all(block in self.index for block in self._cached), "a block is kept that nobody can find"
        assert not any(block in self.index for block in self._free), "a free block can be found"
        partly = [block for block in used if block in self.index and len(self.index[block].ids) < BLOCK]
        assert not partly, "a block can be found that its sequence still writes to"
        self.index.check()
        for table in self._tables:
            for block, chain in zip(table.blocks, table.chain, strict=False):
                known = self.index.get(block)
                assert known is None or known.parent == chain, "a block is shared by two different texts"


def _scope(tenant: str, session: str) -> str:
    return f"{tenant}\0{session}"
