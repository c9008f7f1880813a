from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.llm.cache.kv import BLOCK, blocks_for
from stages.llm.gpu.tables import Mirror, Tables, blocks_of, tables_for_step
from stages.llm.models.steps import Place
from tests.stages.llm.gpu.cases import CPU

SPANS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 90)), min_size=1, max_size=5)


def places_for(spans: list[tuple[int, int]]) -> list[Place]:
    """Places for sequences (computed, new), with blocks of nobody else, in no order."""
    free = random.Random(0).sample(range(100), 100)
    places, row = [], 0
    for start, count in spans:
        places.append(Place(row, count, start, [free.pop() for _ in range(blocks_for(start + count))]))
        row += count
    return places


def tables(rows: int, sequences: int, width: int, *, blocks: int = 100, cuts: tuple[int, ...] = ()) -> Tables:
    """Empty tables for a store of so many blocks."""
    return tables_for_step(rows, rows, sequences, width, torch.zeros(blocks, 1), cuts)


@settings(max_examples=30)
@given(SPANS, st.integers(0, 9), st.sampled_from([1, 4, 16]))
def test_every_token_is_in_one_tile_and_one_slot(spans: list[tuple[int, int]], rest: int, cut: int) -> None:
    """Tiles cover each row once, with its position and its sequence; its slot is where its block says."""
    places = places_for(spans)
    rows = sum(count for _, count in spans) + rest
    filled = tables(rows, len(places), blocks_of(places))
    filled.fill(places)

    seen: dict[int, tuple[int, int]] = {}
    for row, count, position, sequence in filled.tiles(cut).tolist():
        assert 1 <= count <= cut
        for offset in range(count):
            assert row + offset not in seen
            seen[row + offset] = position + offset, sequence
    assert sorted(seen) == list(range(rows))
    for number, place in enumerate(places):
        for offset in range(place.count):
            row, position = place.row + offset, place.start + offset
            assert seen[row] == (position, number)
            assert filled.positions[row] == position
            assert filled.slots[row] == place.blocks[position // BLOCK] * BLOCK + position % BLOCK
            assert filled.blocks[number, position // BLOCK] == place.blocks[position // BLOCK]
    for row in range(rows - rest, rows):
        assert seen[row][0] < 0
        assert filled.positions[row] == -1
        assert filled.slots[row] == 100 * BLOCK


def test_tiles_with_most_to_read_come_first() -> None:
    """A program that begins last should not be the one that takes longest."""
    places = places_for([(0, 20), (200, 1), (64, 3)])
    filled = tables(24, 3, blocks_of(places))
    filled.fill(places)

    ends = [position + count for _, count, position, _ in filled.tiles(4).tolist()]

    assert ends == sorted(ends, reverse=True)


def test_filled_again_they_are_in_the_same_memory() -> None:
    """What a graph has recorded reads the new step, and nothing of the one before."""
    again = tables(8, 8, 4, cuts=(4,))
    parts = again.positions, again.slots, again.blocks, again.tiles(4)
    where = [part.data_ptr() for part in parts]

    again.fill(places_for([(70, 5), (3, 1)]), {"ids": [7] * 6, "wanted": [4, 5]})
    first = [part.tolist() for part in parts]
    assert again.tiles(4)[4].tolist() == [0, 0, 0, 0], "no tokens: four tiles are all"
    again.fill([Place(0, 1, 9, [42])], {"ids": [3], "wanted": [0]})

    assert [part.data_ptr() for part in parts] == where
    assert again.tiles(4).data_ptr() == where[3]
    assert again.positions.tolist() == [9] + [-1] * 7
    assert again.slots.tolist() == [42 * BLOCK + 9] + [100 * BLOCK] * 7
    assert again.blocks[0, 0] == 42
    assert again.tiles(4).tolist() == [[0, 1, 9, 0], [5, 3, -3, 0], [1, 4, -7, 0], *[[0, 0, 0, 0]] * 5]
    assert [part.tolist() for part in parts] != first


def test_other_cuts_are_noted() -> None:
    """What was asked for before it was known is told, to be known for a recorded step."""
    filled = tables(4, 1, 1)
    filled.fill([Place(0, 3, 0, [1])])

    assert filled.tiles(2).shape == (3, 4)
    assert filled.cuts == {2}


def test_a_part_has_its_size() -> None:
    """Too many numbers are refused: they would run over into the next part."""
    mirror = Mirror({"a": 2, "b": 2}, CPU)

    with pytest.raises(ValueError, match="3 numbers for 'a', which has room for 2"):
        mirror.put("a", [1, 2, 3])
    assert mirror.part("b").data_ptr() - mirror.part("a").data_ptr() == 16
    mirror.put("a", [1, 2])
    mirror.put("b", [3, 4])
    mirror.send("b", 1)
    assert mirror.part("a").tolist() == [1, 2]
    assert mirror.part("b").tolist() == [3, 0]
