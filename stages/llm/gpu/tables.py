"""Where everything of a ragged batch is, as numbers on the device: what kernels read instead of Python's objects.

The numbers are written on the host into one buffer and sent in one copy. A buffer can be filled again for each step of
a recorded graph, which reads the same memory every time. Knows no kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK, blocks_for
from stages.llm.models.steps import Place

SPLIT = 4 * BLOCK
"""Positions of a context that are computed beside others at least; a multiple of `BLOCK`."""

ALIGNED = 4
"""Numbers in 16 bytes."""


class Mirror:
    """int32 numbers in named parts, on the host and on the device. Sent in one copy, in the order of the parts.

    Parts begin at multiples of 16 bytes: kernels are compiled for that.
    """

    def __init__(self, sizes: Mapping[str, int], device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._at: dict[str, tuple[int, int]] = {}
        total = 0
        for name, size in sizes.items():
            self._at[name] = total, size
            total += size + -size % ALIGNED
        self._host = torch.zeros(total, dtype=torch.int32, pin_memory=on_gpu)
        self._numbers = self._host.numpy()  # the same memory, written in a third of the time
        self._device = torch.zeros(total, dtype=torch.int32, device=device)
        self._sent = torch.cuda.Event() if on_gpu else None

    def part(self, name: str) -> Tensor:
        """The part on the device; always the same memory."""
        at, size = self._at[name]
        return self._device[at : at + size]

    def begin(self) -> None:
        """Wait until what was written last has left the host: it must not change on its way."""
        if self._sent is not None:
            self._sent.synchronize()

    def put(self, name: str, numbers: Sequence[int], *, at: int = 0) -> None:
        """Write `numbers` into the part, from its number `at` on.

        Raises:
            ValueError: the part is too small.
        """
        first, size = self._at[name]
        if at + len(numbers) > size:
            raise ValueError(f"{at + len(numbers)} numbers for {name!r}, which has room for {size}")
        self._numbers[first + at : first + at + len(numbers)] = numbers

    def send(self, name: str, count: int) -> None:
        """Send all parts before `name`, and the first `count` numbers of that."""
        end = self._at[name][0] + count
        self._device[:end].copy_(self._host[:end], non_blocking=True)
        if self._sent is not None:
            self._sent.record()


class Tables:
    """The tables of a batch of `rows` rows and at most so many sequences, each of at most `width` blocks.

    `positions` [rows] are the tokens' positions (-1: none), `slots` [rows] where their keys and values go (block x
    BLOCK + place; `nobody` is where those of no sequence go), `blocks` [sequences, width] the sequences' blocks.
    `tiles(n)` cuts the tokens into pieces of at most n. `cuts` are the n that will be asked for where the tables are
    filled more than once, `more` other parts that are to be sent along.
    """

    def __init__(
        self,
        rows: int,
        sequences: int,
        width: int,
        device: torch.device,
        *,
        nobody: int,
        cuts: Iterable[int] = (),
        more: Mapping[str, int] | None = None,
    ) -> None:
        self.rows, self.width = rows, width
        self.places: list[Place] = []
        self.used = 0
        """Rows that are tokens of sequences."""
        self.cuts = set(cuts)
        self._nobody = nobody
        tiles = {f"tiles {cut}": 4 * rows for cut in sorted(self.cuts)}
        sizes = {"positions": rows, "slots": rows, **tiles, **(more or {}), "blocks": sequences * width}
        self.mirror = Mirror(sizes, device)
        self.positions = self.mirror.part("positions")
        self.slots = self.mirror.part("slots")
        self.blocks = self.mirror.part("blocks").view(sequences, width)
        self._tiles = {cut: self.mirror.part(f"tiles {cut}").view(rows, 4) for cut in sorted(self.cuts)}
        self._late: dict[int, Tensor] = {}

    def fill(self, places: Sequence[Place], more: Mapping[str, Sequence[int]] | None = None) -> None:
        """Hold `places`, whose rows follow each other from 0 on, and `more` for the other parts."""
        self.used = sum(place.count for place in places)
        rest = self.rows - self.used
        self.places = [*places, Place(self.used, rest, -rest, ())] if rest else list(places)
        self._late.clear()
        mirror = self.mirror
        mirror.begin()
        mirror.put("positions", [p for place in places for p in _positions(place)] + [-1] * rest)
        mirror.put("slots", [slot for place in places for slot in _slots(place)] + [self._nobody] * rest)
        for cut in self._tiles:
            numbers = _tiles(self.places, cut)
            mirror.put(f"tiles {cut}", numbers + [0] * (4 * self.rows - len(numbers)))
        for name, others in (more or {}).items():
            mirror.put(name, others)
        for number, place in enumerate(places):
            mirror.put("blocks", place.blocks[: blocks_for(place.start + place.count)], at=number * self.width)
        mirror.send("blocks", len(places) * self.width)

    def tiles(self, positions: int) -> Tensor:
        """Pieces of at most so many tokens of a sequence: [tiles, (row, tokens, first position, sequence)].

        Those with most to read come first. Pieces of no tokens may follow.
        """
        known = self._tiles.get(positions, self._late.get(positions))
        if known is None:
            self.cuts.add(positions)
            numbers = torch.tensor(_tiles(self.places, positions), dtype=torch.int32)
            known = self._late[positions] = numbers.view(-1, 4).to(self.blocks.device)
        return known


def tables_for_step(
    rows: int, wanted: int, sequences: int, width: int, store: Tensor, cuts: Iterable[int] = ()
) -> Tables:
    """Tables for a step of a model with its keys and values in `store` [blocks, ...]: the ids, and where to choose."""
    more = {"ids": rows, "wanted": wanted}
    nobody = store.shape[0] * BLOCK
    return Tables(rows, max(1, sequences), max(1, width), store.device, nobody=nobody, cuts=cuts, more=more)


def blocks_of(places: Iterable[Place]) -> int:
    """Blocks of the longest sequence, its new tokens included."""
    return max((blocks_for(place.start + place.count) for place in places), default=0)


def _positions(place: Place) -> range:
    return range(place.start, place.start + place.count)


def _slots(place: Place) -> list[int]:
    """Where the tokens of `place` go: runs of neighbours, block by block."""
    slots: list[int] = []
    position, end = place.start, place.start + place.count
    while position < end:
        upper = min(end, position - position % BLOCK + BLOCK)
        first = place.blocks[position // BLOCK] * BLOCK + position % BLOCK
        slots += range(first, first + upper - position)
        position = upper
    return slots


def _tiles(places: Sequence[Place], positions: int) -> list[int]:
    tiles = [
        (place.row + at, min(positions, place.count - at), place.start + at, number if place.blocks else 0)
        for number, place in enumerate(places)
        for at in range(0, place.count, positions)
    ]
    tiles.sort(key=_end, reverse=True)
    return [number for tile in tiles for number in tile]


def _end(tile: tuple[int, int, int, int]) -> int:
    return tile[2] + tile[1]
