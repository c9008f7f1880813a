"""Functions of single numbers, the same bits for a row in any batch, with any number of threads.

torch computes the last numbers of a thread's share by other instructions than the rest, and exp, tanh and cos differ
there in the last bit. Where shares end depends on the number of rows (measured: with 3 threads and 704 columns, silu
differs from 100 rows on). What is smaller than `SHARE` is never shared, so larger things are computed in such pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SHARE = 1 << 14
"""Numbers from which on torch shares work among threads: that of gelu; it is twice as many for all else."""

MULTIPLE = 4
"""Of rows in a piece, so that it ends where its last full vector does."""

ROTARY = 64
"""Positions whose angles are computed at once."""


def in_pieces(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """`function` of `rows`, [1, T, width], whose results are of the same shape."""
    if rows.numel() < SHARE or rows.device.type != "cpu" or torch.get_num_threads() == 1:
        return function(rows)
    most = (SHARE - 1) // rows.shape[-1]
    most = max(1, most - most % MULTIPLE if most > MULTIPLE else most)
    return torch.cat([function(piece) for piece in rows.split(most, 1)], 1)


def steady(network: nn.Module) -> None:
    """Let the activations and the rotary angles of `network` be computed in pieces."""
    for module in network.modules():
        kind = type(module)
        if kind.__name__.endswith("RotaryEmbedding"):
            module.forward = _turning(module.forward)
        elif kind.__module__ in ("transformers.activations", "torch.nn.modules.activation"):
            module.forward = _acting(module.forward)


def _acting(library: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An activation in pieces; of an unusual shape as it is."""
    return lambda rows: in_pieces(library, rows) if rows.dim() == 3 else library(rows)


def _turning(library: Callable[..., Any]) -> Callable[..., Any]:
    """Cosines and sines of the positions, [1, T, size] each, in pieces."""

    def forward(rows: Tensor, position_ids: Tensor, *others: Any, **more: Any) -> Any:
        pieces = [library(rows, piece, *others, **more) for piece in position_ids.split(ROTARY, -1)]
        return pieces[0] if len(pieces) == 1 else tuple(torch.cat(each, 1) for each in zip(*pieces, strict=True))

    return forward
