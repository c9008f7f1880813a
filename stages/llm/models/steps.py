"""A step is a call of the model for a ragged batch: where its tokens belong, and what computes it.

Where nothing does, it is left to the network: on an accelerator and for what is compiled for the CPU something does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """`count` new tokens of one sequence, in the batch from `row` on, in the sequence from position `start` on.

    `blocks` are the sequence's. Tokens before position 0 see nothing and are stored nowhere: rows that fill a batch up.
    """

    row: int
    count: int
    start: int
    blocks: Sequence[int]


class Steps(Protocol):
    """Computes ragged batches."""

    def __call__(self, ids: Sequence[int], wanted: Sequence[int], places: Sequence[Place], store: Tensor) -> Tensor:
        """The logits at the rows `wanted`, [n, vocabulary] in float32; those of some row where none is."""
        ...

    def record(self, store: Tensor, context: int) -> None:
        """From now on small steps of sequences in `store`, of up to `context` positions, may be recorded."""
        ...

    def warm(self, tell: Callable[[float], None]) -> None:
        """Do now what answers would wait for later; `tell` how much of it is done."""
        ...
