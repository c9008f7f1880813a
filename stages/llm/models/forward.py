"""One call of the model for a ragged batch: all sequences' next tokens in one row, [1, T]."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from stages.llm.gpu.tables import Place
from stages.llm.models.layout import Ragged, Span

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
    """The logits to choose from, in float32: for each work that is `last`, one row per choice; then padding.

    An accelerator has steps of its own (see `gpu/steps.py`).
    """
    ids: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    spans: list[Span] = []
    for work in works:
        sequence, start = work.sequence, work.sequence.computed
        spans.append(Span(sequence.table, start, work.count, len(ids)))
        ids += sequence.tokens(start, work.count)
        positions += range(start, start + work.count)
        if work.last:
            wanted += range(len(ids) - sequence.logits, len(ids))
    store = works[0].sequence.store
    if model.steps is not None:
        return model.steps(ids, wanted, [Place(s.row, s.count, s.start, s.table.blocks) for s in spans], store)
    rows = max(ROWS, -(-len(ids) // ROWS) * ROWS)
    padding = [0] * (rows - len(ids))
    wanted += [wanted[-1] if wanted else 0] * (ROWS - len(wanted))
    device = model.device
    with torch.inference_mode():
        result = model.network(
            input_ids=torch.tensor([ids + padding], device=device),
            position_ids=torch.tensor([positions + padding], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, device=device),
            ragged=Ragged(spans, rows, store),
        )
        logits: Tensor = result.logits[0].float()
    return logits
