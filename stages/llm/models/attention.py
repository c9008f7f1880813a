"""Attention over a ragged batch: many sequences in one row of tokens, each seeing its own past and nothing else.

Registered with transformers as an attention implementation; the batch reaches it as a keyword argument of `model(...)`.
Keys and values lie in blocks (see `cache/blocks.py`); where they lie and what is computed together is planned once for
a batch, in `layout.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from stages.llm.cache.kv import Shape
from stages.llm.gpu.attention import Paged
from stages.llm.models.capped import capped_attention
from stages.llm.models.layout import Call, Ragged

NAME = "penstock"


class Survey:
    """Stands for the batch in a trial call, and notes what the layers keep of a token."""

    def __init__(self) -> None:
        self._seen: dict[int, Shape] = {}

    def note(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """A layer has been asked for attention; some result of the right shape."""
        if key.shape != value.shape:
            raise NotImplementedError("keys and values of different sizes")
        _, heads, _, size = key.shape
        self._seen[layer] = Shape(1, heads, size, key.dtype, key.device)
        return query.transpose(1, 2).contiguous()

    @property
    def shape(self) -> Shape:
        """What the model keeps of a token.

        Raises:
            NotImplementedError: its layers are not all alike, or not all ask for attention.
        """
        if sorted(self._seen) != list(range(len(self._seen))) or not self._seen:
            raise NotImplementedError("its layers do not all ask for attention")
        if len(set(self._seen.values())) > 1:
            raise NotImplementedError("its layers keep keys of different shapes")
        return self._seen[0]._replace(layers=len(self._seen))


def ragged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    ragged: Ragged | Paged | Survey,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend each span to its own sequence; store the new keys and values first.

    Shapes: query [1, H, T, d]; key, value [1, KV heads, T, d]; the result [1, T, H, d]. The queries are regrouped to
    [groups, KV heads, H / KV heads * step, d], so that all heads and positions of a group are one product.
    """
    _refuse_unknown(attention_mask, others)
    if isinstance(ragged, Survey):
        return ragged.note(module.layer_idx, query, key, value), None
    if isinstance(ragged, Paged):
        attended = ragged.attend(
            module.layer_idx, query, key, value, scaling=scaling, window=sliding_window, softcap=softcap
        )
        return attended, None
    layer, heads, kv_heads, size = module.layer_idx, query.shape[1], key.shape[1], query.shape[3]
    ragged.write(layer, key[0], value[0])
    plan = ragged.layout(heads, kv_heads)
    queries = query.transpose(1, 2).reshape(-1, size).index_select(0, plan.gather).view(plan.groups, kv_heads, -1, size)
    results = []
    for number, group in enumerate(plan.gathered):
        keys, values = ragged.read(layer, group)
        for call, mask in zip(group.calls, plan.masks(number, sliding_window, query.dtype), strict=True):
            asked = queries[call.first : call.first + call.groups], _seen(keys, call), _seen(values, call), mask
            if softcap is None:
                results.append(scaled_dot_product_attention(*asked, scale=scaling))
            else:
                results.append(capped_attention(*asked, scale=scaling, cap=softcap))
    result = torch.cat(results) if len(results) > 1 else results[0]
    return result.view(-1, size).index_select(0, plan.scatter).view(1, ragged.rows, heads, size), None


def _seen(gathered: Tensor, call: Call) -> Tensor:
    """What `call` sees of `gathered` keys or values, [groups, KV heads, keys, size]."""
    if gathered.shape[0] == call.groups and gathered.shape[2] == call.keys:
        return gathered
    return gathered[: call.groups, :, : call.keys].expand(call.groups, -1, -1, -1)


def _refuse_unknown(attention_mask: Tensor | None, others: dict[str, Any]) -> None:
    """A model that asks for more than this attention computes would answer wrongly without a word (see `kinds.py`)."""
    asked = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
    if attention_mask is not None:
        asked.append("attention_mask")
    if others.get("is_causal") is False:
        asked.append("is_causal=False")
    if asked:
        raise NotImplementedError(f"attention with {', '.join(asked)}")


def register() -> None:
    """Make `NAME` known to transformers. No mask function goes with it, so the library builds no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, ragged_attention)
