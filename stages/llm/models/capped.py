"""Attention whose scores are capped before the softmax (Gemma 2): s becomes cap * tanh(s / cap).

torch's fused attention cannot do it. As with that, a query's result depends on the shapes it is computed in, so these
must not depend on its company; the caller sees to it (see `layout.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.llm.models.rowwise import in_pieces


def capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scale: float | None, cap: float
) -> Tensor:
    """Of [groups, heads, n, d] over [groups, heads, keys, d]; `mask`, [groups, 1, n, keys], is added to the scores.

    The scores are multiplied by `scale`, by 1 / sqrt(d) if there is none. The softmax is computed in float32, as the
    library does.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) * (scale or query.shape[-1] ** -0.5)
    bent = in_pieces(torch.tanh, (scores / cap).view(1, -1, key.shape[2])).view(scores.shape)
    scores = bent * cap + mask
    return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(value.dtype), value)
