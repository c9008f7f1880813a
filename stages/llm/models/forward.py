"""One call of the model for a ragged batch: all sequences' next tokens in one row, [1, T]."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from stages.llm.models.layout import Ragged
from stages.llm.models.steps import Place

if TYPE_CHECKING:
    from stages.llm.cache.blocks import BlockTable
    from stages.llm.models.model import LoadedModel

ROWS = 4
"""Rows that every product has at least, and a multiple of which the batch has: with fewer, the library takes another
path and a row's bits depend on its company."""


class Tokens(Protocol):
    """What the model computes: the target's sequence, or the draft's view of it."""

    @property
    def table(self) -> BlockTable:
        """Where the keys and values of the first `computed` tokens are; it has blocks for what is computed next."""
        ...

    @property
    def store(self) -> Tensor:
        """What the table's numbers mean: the model's store, or the draft's."""
        ...

    @property
    def computed(self) -> int:
        """Tokens computed already."""
        ...

    @property
    def pending(self) -> int:
        """Tokens that are not."""
        ...

    @property
    def logits(self) -> int:
        """How many of the last positions to choose at."""
        ...

    def tokens(self, start: int, count: int) -> list[int]:
        """The ids at these positions."""
        ...


S = TypeVar("S", bound=Tokens)


@dataclass(frozen=True, slots=True)
class Work(Generic[S]):
    """The next `count` tokens of `sequence`."""

    sequence: S
    count: int

    @property
    def last(self) -> bool:
        """Whether the sequence's next token can be chosen after it."""
        return self.count == self.sequence.pending


def forward(model: LoadedModel, works: Seq[Work[S]]) -> Tensor:
    """The logits to choose from, in float32: for each work that is `last`, one row per choice; then padding."""
    ids: list[int] = []
    wanted: list[int] = []
    places: list[Place] = []
    for work in works:
        sequence, start = work.sequence, work.sequence.computed
        places.append(Place(len(ids), work.count, start, sequence.table.blocks))
        ids += sequence.tokens(start, work.count)
        if work.last:
            wanted += range(len(ids) - sequence.logits, len(ids))
    store = works[0].sequence.store
    if model.steps is not None:
        return model.steps(ids, wanted, places, store)
    return _by_network(model, ids, wanted, places, store)


@torch.inference_mode()
def _by_network(model: LoadedModel, ids: Seq[int], wanted: Seq[int], places: Seq[Place], store: Tensor) -> Tensor:
    """The same by one call of the network, with as many rows as its products want."""
    rows = max(ROWS, -(-len(ids) // ROWS) * ROWS)
    padding = [0] * (rows - len(ids))
    wanted = [*wanted, *[wanted[-1] if wanted else 0] * (ROWS - len(wanted))]
    positions = [position for place in places for position in range(place.start, place.start + place.count)]
    logits: Tensor = model.network(
        input_ids=torch.tensor([[*ids, *padding]]),
        position_ids=torch.tensor([positions + padding]),
        use_cache=False,
        logits_to_keep=torch.tensor(wanted),
        ragged=Ragged(places, rows, store),
    ).logits[0]
    return logits.float()
