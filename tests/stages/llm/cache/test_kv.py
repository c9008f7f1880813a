"""What is kept of a token, and how much of two texts is the same."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.cache.kv import BLOCK, Shape, blocks_for, common


def test_a_block_holds_all_layers_of_its_positions() -> None:
    """A store is a tensor of blocks, and takes the bytes that its shape says."""
    shape = Shape(3, 2, 5, torch.bfloat16, torch.device("cpu"))
    store = shape.store(7)

    assert store.shape == (7, 3, 2, 2, BLOCK, 5)
    assert store.nbytes == 7 * shape.block_bytes == 7 * BLOCK * shape.token_bytes


def test_so_many_blocks_are_enough() -> None:
    """Blocks are counted up."""
    assert [blocks_for(n) for n in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]


@given(one=st.lists(st.integers(0, 1), max_size=8), other=st.lists(st.integers(0, 1), max_size=8))
def test_common_beginning(one: list[int], other: list[int]) -> None:
    """It is common, and cannot be longer."""
    n = common(one, other)

    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]
