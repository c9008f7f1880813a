"""What finished turns leave to their sessions' next, in bounded memory."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.kv import BLOCK, PrefixPool, SequenceKV, common

SIZE = 2 * BLOCK * 4 * 4
"""Bytes of a store with one layer, one head of size 4, up to a block of positions, in float32."""


def store(tokens: int = 1) -> SequenceKV:
    """Keys and values of so many tokens."""
    kv = SequenceKV()
    kv.write(0, 0, torch.ones(1, tokens, 4), torch.ones(1, tokens, 4))
    return kv


def test_what_is_written_stays_when_the_store_grows() -> None:
    """A store grows in blocks, keeps what it has, and is zero beyond."""
    kv = store(3)

    keys, _ = kv.write(0, 3, torch.full((1, BLOCK, 4), 2.0), torch.zeros(1, BLOCK, 4))

    assert keys.shape[1] % BLOCK == 0
    assert keys[0, :, 0].tolist() == [1.0] * 3 + [2.0] * BLOCK + [0.0] * (keys.shape[1] - BLOCK - 3)


def test_longest_common_beginning_is_taken() -> None:
    """A prompt gets what it has in common with the scope's last turn, and always computes its last token."""
    pool = PrefixPool(10 * SIZE)
    pool.put("a", [1, 2, 3, 4], kept := store())

    assert pool.take("b", [1, 2, 3, 4])[1] == 0
    assert pool.take("a", [1, 2, 9]) == (kept, 2)
    assert pool.take("a", [1, 2, 9])[1] == 0
    pool.put("a", [1, 2, 3, 4], kept)
    assert pool.take("a", [1, 2, 3, 4]) == (kept, 3)
    assert pool.bytes == 0


@given(puts=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 3 * BLOCK)), max_size=30))
def test_memory_stays_within_its_bound(puts: list[tuple[str, int]]) -> None:
    """Whatever is put in, the pool holds at most its limit, counts right, and keeps the latest that fits."""
    pool = PrefixPool(3 * SIZE)
    for scope, tokens in puts:
        kv = store(tokens)
        pool.put(scope, range(tokens), kv)

        assert pool.bytes == sum(kept.kv.bytes for kept in pool._kept.values()) <= 3 * SIZE
        assert (scope in pool._kept) == (kv.bytes <= 3 * SIZE)


@given(one=st.lists(st.integers(0, 1), max_size=8), other=st.lists(st.integers(0, 1), max_size=8))
def test_common_beginning(one: list[int], other: list[int]) -> None:
    """It is common, and cannot be longer."""
    n = common(one, other)

    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]
