"""What finished turns leave to their sessions' next, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.kv import BLOCK, Kept, PrefixPool, SequenceKV, common

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


class Below:
    """A tier that keeps everything."""

    def __init__(self) -> None:
        self.has: dict[str, Kept] = {}

    def put(self, scope: str, kept: Kept) -> None:
        """Have one."""
        self.has[scope] = kept

    def put_last(self, last: Iterable[tuple[str, Kept]]) -> None:
        """Have these."""
        self.has.update(last)

    def take(self, scope: str, ids: Sequence[int]) -> Kept | None:
        """Give it back."""
        return self.has.pop(scope, None)


def test_what_is_dropped_for_room_goes_below_and_comes_back() -> None:
    """The oldest goes to the tier below and is found there; what is too large alone goes there and moves no other."""
    below = Below()
    pool = PrefixPool(2 * SIZE, below)
    for scope in "abc":
        pool.put(scope, [1, 2, 3], store())
    pool.put("large", range(3 * BLOCK), large := store(3 * BLOCK))

    assert set(below.has) == {"a", "large"}
    assert pool.take("large", [0, 1, 2]) == (large, 2)
    assert pool.take("a", [1, 2, 9])[1] == 2
    assert pool.take("a", [1, 2, 9])[1] == 0
    assert pool.take("c", [1, 2, 9])[1] == 2
    assert not below.has


def test_what_is_replaced_or_of_no_use_does_not_go_below() -> None:
    """A scope's newer turn takes the place of the older; the tier is asked only for scopes that are not in memory."""
    below = Below()
    pool = PrefixPool(2 * SIZE, below)
    pool.put("a", [1, 2, 3], store())
    pool.put("a", [4, 5, 6], store())
    below.has["a"] = Kept((7, 8, 9), store())

    assert pool.take("a", [7, 8, 9])[1] == 0
    assert below.has["a"].ids == (7, 8, 9)
    assert pool.take("b", [7, 8, 9])[1] == 0


def test_at_the_end_all_goes_below_the_latest_first() -> None:
    """Closing empties the pool."""
    below = Below()
    pool = PrefixPool(9 * SIZE, below)
    for scope in "abc":
        pool.put(scope, [1, 2, 3], store())
    pool.close()

    assert list(below.has) == ["c", "b", "a"]
    assert pool.bytes == 0
    PrefixPool(SIZE).close()


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
