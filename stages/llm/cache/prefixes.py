"""Which block holds the keys and values of which tokens: a tree of blocks by the tokens before them.

A place in it is named by a chain of hashes, h_i = H(h_(i-1), the tokens of block i), which begins with the model and
the tenant: so no tenant finds another's, and the names are the same in every process. A hash only names the place;
that a block holds the tokens asked for is always seen from the tokens themselves.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from stages.llm.cache.kv import BLOCK, common


class Node(NamedTuple):
    """A block's tokens, at most `BLOCK`, and the chain before them."""

    parent: bytes
    ids: tuple[int, ...]


def root(fingerprint: str, tenant: str) -> bytes:
    """Where the chains of a tenant begin."""
    return hashlib.blake2b(f"{fingerprint}\0{tenant}".encode(), digest_size=16).digest()


def link(parent: bytes, ids: Sequence[int]) -> bytes:
    """The chain after a full block of `ids`."""
    return hashlib.blake2b(parent + struct.pack(f"<{len(ids)}q", *ids), digest_size=16).digest()


class PrefixIndex:
    """The blocks with confirmed tokens. A partly filled one can be found, and nothing comes after it."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._children: dict[bytes, list[tuple[tuple[int, ...], int]]] = {}
        # In the order of their tokens: what has the most in common with a text stands next to where it would stand.

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, block: int) -> bool:
        return block in self._nodes

    def __getitem__(self, block: int) -> Node:
        return self._nodes[block]

    def get(self, block: int) -> Node | None:
        """What `block` is known to hold."""
        return self._nodes.get(block)

    def add(self, block: int, parent: bytes, ids: tuple[int, ...]) -> bool:
        """`block` holds `ids` after `parent`. False: another block is known to hold them."""
        children = self._children.setdefault(parent, [])
        at = bisect_left(children, (ids,))
        if at < len(children) and children[at][0] == ids:
            return children[at][1] == block
        self.remove(block)
        insort(self._children.setdefault(parent, []), (ids, block))
        self._nodes[block] = Node(parent, ids)
        return True

    def remove(self, block: int) -> None:
        """Forget what `block` holds."""
        node = self._nodes.pop(block, None)
        if node is None:
            return
        children = self._children[node.parent]
        del children[bisect_left(children, (node.ids, block))]
        if not children:
            del self._children[node.parent]

    def best(self, parent: bytes, ids: tuple[int, ...]) -> tuple[int, int]:
        """The block after `parent` that has the most of the beginning of `ids`, and how much; 0 if none has any."""
        children = self._children.get(parent, [])
        at = bisect_left(children, (ids,))
        found = [(common(known, ids), block) for known, block in children[max(0, at - 1) : at + 1]]
        count, block = max(found, default=(0, 0))
        return block, count

    def match(self, parent: bytes, ids: Sequence[int]) -> tuple[list[int], int, int]:
        """The full blocks that `ids` begin with; then the block that has most of what follows, and how much of it."""
        full: list[int] = []
        while True:
            part = tuple(ids[len(full) * BLOCK : (len(full) + 1) * BLOCK])
            block, count = self.best(parent, part)
            if count < BLOCK:
                return full, block, count
            full.append(block)
            parent = link(parent, part)

    def check(self) -> None:
        """Raise AssertionError if the two ways to look at it disagree."""
        listed = {block: Node(parent, ids) for parent, those in self._children.items() for ids, block in those}
        assert listed == self._nodes, "a block is listed under tokens it does not hold"
        assert sum(map(len, self._children.values())) == len(listed), "a block is listed twice"
        for children in self._children.values():
            assert children == sorted(children), "children are out of order"
            assert len({ids for ids, _ in children}) == len(children) > 0, "the same tokens twice"
