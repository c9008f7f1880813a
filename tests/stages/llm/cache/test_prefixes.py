"""Which block holds which tokens: what is found is always what was asked for, and the most there is of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.llm.cache.kv import BLOCK, common
from stages.llm.cache.prefixes import PrefixIndex, link, root

START = root("model", "tenant")


def test_tenants_and_models_begin_elsewhere() -> None:
    """Another tenant's chain, or another model's, has another name from its beginning on, the same in every process."""
    assert len({START, root("model", "other"), root("other", "tenant")}) == 3
    assert link(START, [1, 2]) != link(START, [2, 1])


def test_full_blocks_are_followed_and_the_next_best_is_told() -> None:
    """A text's full blocks are found one after the other; then the block that has most of what follows."""
    index = PrefixIndex()
    text = list(range(3 * BLOCK))
    first = link(START, text[:BLOCK])
    index.add(1, START, tuple(text[:BLOCK]))
    index.add(2, first, tuple(text[BLOCK : BLOCK + 9]))
    index.add(3, first, (*text[BLOCK : BLOCK + 4], 999))

    assert index.match(START, text) == ([1], 2, 9)
    assert index.match(START, [*text[: BLOCK + 4], 999, 5]) == ([1], 3, 5)
    assert index.match(START, text[:5]) == ([], 1, 5)
    assert index.match(root("model", "other"), text) == ([], 0, 0)


def test_a_hash_alone_is_no_proof() -> None:
    """Even under the name of another text, a block is found only by the tokens it holds."""
    index = PrefixIndex()
    index.add(1, START, (7,) * BLOCK)

    assert index.match(START, [8] * BLOCK) == ([], 1, 0)


def test_the_same_tokens_stand_once() -> None:
    """A second block with the same tokens is not listed; one that grows stands under what it has become."""
    index = PrefixIndex()

    assert index.add(1, START, (1, 2))
    assert not index.add(2, START, (1, 2))
    assert index.add(1, START, (1, 2, 3))
    assert (2 in index, index[1].ids, len(index)) == (False, (1, 2, 3), 1)
    index.check()


texts = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@given(known=st.lists(texts, max_size=12), gone=st.sets(st.integers(0, 11)), asked=texts)
def test_best_has_the_longest_common_beginning(
    known: list[tuple[int, ...]], gone: set[int], asked: tuple[int, ...]
) -> None:
    """Of all blocks after a text, the one is found that goes on longest as asked."""
    index = PrefixIndex()
    for block, ids in enumerate(known):
        index.add(block, START, ids)
    for block in gone:
        index.remove(block)
    index.check()

    block, count = index.best(START, asked)

    left = [known[number] for number in range(len(known)) if number in index]
    assert count == max((common(ids, asked) for ids in left), default=0)
    assert not count or common(index[block].ids, asked) == count
