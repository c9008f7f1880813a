"""One call of the model for a ragged batch: all sequences' next tokens in one row, [1, T]."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stages.llm.attention import Ragged, Span

if TYPE_CHECKING:
    from stages.llm.model import LoadedModel
    from stages.llm.sequence import Sequence

ROWS = 4
"""Rows that every product has at least, and a multiple of which the batch has: with fewer, the library takes another
path and a row's bits depend on its company."""


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of `sequence`."""

    sequence: Sequence
    count: int

    @property
    def last(self) -> bool:
        """Whether the sequence's next token can be chosen after it."""
        return self.count == self.sequence.pending


def forward(model: LoadedModel, works: Seq[Work]) -> Tensor:
    """The logits to choose from, in float32: for each work that is `last`, one row per choice; then padding."""
    ids: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    spans: list[Span] = []
    for work in works:
        sequence, start = work.sequence, work.sequence.computed
        spans.append(Span(sequence.kv, start, work.count, len(ids)))
        ids += sequence.tokens(work.count)
        positions += range(start, start + work.count)
        if work.last:
            wanted += range(len(ids) - len(sequence.drafts) - 1, len(ids))
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
            ragged=Ragged(spans, rows),
        )
        logits: Tensor = result.logits[0].float()
    return logits
