"""The forward pass of the Llama family (Llama, Mistral, Qwen2, Qwen3) with nothing in it but arithmetic.

For a model of a few million parameters the library's modules cost more time than its products. This computes the same
from the same weights: the queries', keys' and values' products in one, the gate's and the up projection's too, the
rotary angles looked up. It stands behind the network's own call, for the engine's batches only, and only where every
module is one that is known here; all other models, and all other calls, are the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, silu

from stages.llm.models import attention
from stages.llm.models.linears import Product, joined
from stages.llm.models.rowwise import in_pieces

FAMILY = ("Llama", "Mistral", "Qwen2", "Qwen3")
PARTS = ("Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
COMMON = ("ModuleList", "Embedding", "Linear", "SiLUActivation", "SiLU")

PIECE = 4096
"""Positions whose angles are computed at once."""


@dataclass(frozen=True, slots=True)
class Norm:
    """x / sqrt(mean(x^2) + eps) * weight, each row for itself."""

    weight: Tensor
    shape: tuple[int, ...]
    eps: float

    def __call__(self, rows: Tensor) -> Tensor:
        """Over the last dimension."""
        return torch.rms_norm(rows, self.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """A decoder layer's parts, `module` its attention; `query_norm` and `key_norm` are Qwen3's."""

    module: Any
    window: int | None
    before: Norm
    qkv: Product
    query_norm: Norm | None
    key_norm: Norm | None
    out: Product
    between: Norm
    gate_up: Product
    down: Product


class Slim:
    """The forward pass of `network`, which must be known (see `known`), for up to `context` positions."""

    def __init__(self, network: Any, context: int) -> None:
        model = network.model
        config = network.config
        self._table = model.embed_tokens.weight
        self._layers = [_layer(layer) for layer in model.layers]
        self._norm = _norm(model.norm)
        self._head = joined([network.lm_head])
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._size: int = model.layers[0].self_attn.head_dim
        self._turns = turns(model.rotary_emb, context, network.dtype)

    def __call__(self, input_ids: Tensor, position_ids: Tensor, logits_to_keep: Tensor, ragged: Any) -> SimpleNamespace:
        """`.logits` of the rows `logits_to_keep`, [1, n, vocabulary], of a batch of shape [1, T]."""
        rows = embedding(input_ids, self._table)
        cosines, sines = self._turns.index_select(0, position_ids[0]).unbind(1)  # [T, 1, size] each
        for layer in self._layers:
            rows = self._attend(layer, rows, cosines, sines, ragged).add_(rows)
            gate, up = layer.gate_up(layer.between(rows)).chunk(2, -1)
            rows = layer.down(in_pieces(silu, gate).mul_(up)).add_(rows)
        return SimpleNamespace(logits=self._head(self._norm(rows.index_select(1, logits_to_keep))))

    def _attend(self, layer: Layer, rows: Tensor, cosines: Tensor, sines: Tensor, ragged: Any) -> Tensor:
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        projected = layer.qkv(layer.before(rows)).view(-1, heads + 2 * kv_heads, size)
        both, values = projected.split_with_sizes((heads + kv_heads, kv_heads), 1)
        if layer.query_norm and layer.key_norm:
            queries, keys = both.split_with_sizes((heads, kv_heads), 1)
            both = torch.cat([layer.query_norm(queries), layer.key_norm(keys)], 1)
        queries, keys = _turned(both, cosines, sines).transpose(0, 1)[None].split_with_sizes((heads, kv_heads), 1)
        attended, _ = attention.ragged_attention(
            layer.module,
            queries,
            keys,
            values.transpose(0, 1)[None],
            None,
            ragged=ragged,
            scaling=layer.module.scaling,
            sliding_window=layer.window,
        )
        return layer.out(attended.reshape(1, -1, heads * size))


def known(network: Any) -> bool:
    """Whether `network` is built of the modules that `Slim` computes, and of no others."""
    family = type(network).__name__.removesuffix("ForCausalLM")
    if family not in FAMILY or not type(network).__module__.startswith("transformers.models."):
        return False
    names = {family + part for part in (*PARTS, "ForCausalLM")} | set(COMMON)
    return {type(module).__name__ for module in network.modules()} <= names and network.config.hidden_act == "silu"


def install(network: Any, context: int) -> None:
    """Have `network` compute the engine's batches (calls with `ragged`) in this way."""
    slim = Slim(network, context)
    library: Callable[..., Any] = MethodType(type(network).forward, network)

    def forward(*, ragged: Any = None, **others: Any) -> Any:
        if ragged is None:
            return library(**others)
        return slim(others["input_ids"], others["position_ids"], others["logits_to_keep"], ragged)

    network.forward = forward


def remove(network: Any) -> None:
    """Leave everything to the library again."""
    vars(network).pop("forward", None)


def _layer(layer: Any) -> Layer:
    own, mlp = layer.self_attn, layer.mlp
    return Layer(
        module=own,
        window=window(own),
        before=_norm(layer.input_layernorm),
        qkv=joined([own.q_proj, own.k_proj, own.v_proj]),
        query_norm=_norm(own.q_norm) if hasattr(own, "q_norm") else None,
        key_norm=_norm(own.k_norm) if hasattr(own, "k_norm") else None,
        out=joined([own.o_proj]),
        between=_norm(layer.post_attention_layernorm),
        gate_up=joined([mlp.gate_proj, mlp.up_proj]),
        down=joined([mlp.down_proj]),
    )


def window(own: Any) -> int | None:
    """Positions that an attention module's queries see; None: all before them."""
    seen: int | None = (
        own.sliding_window if hasattr(own, "sliding_window") else getattr(own.config, "sliding_window", None)
    )
    return seen


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), tuple(module.weight.shape), module.variance_epsilon)


def turns(rotary: nn.Module, context: int, dtype: torch.dtype) -> Tensor:
    """Cosines and sines of all positions, [context, 2, 1, size]; the first half of the sines is negative.

    The angles are rounded as the library rounds them, and their cosines as exactly as they can be, on any machine.
    """
    frequencies: Tensor = rotary.inv_freq  # type: ignore[assignment]
    pieces = []
    for start in range(0, context, PIECE):  # all at once would take five times the memory, 5 GB for a million
        positions = torch.arange(start, start + PIECE, device=frequencies.device).float()
        angles = (positions[:, None] * frequencies.float()).double()
        cosines, sines = (turn * rotary.attention_scaling for turn in (angles.cos(), angles.sin()))  # type: ignore[operator]
        turns = torch.stack([torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)], 1)
        pieces.append(turns[: context - start].to(dtype))
    return torch.cat(pieces)[:, :, None]


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Each head of [T, heads, size] turned: its halves (a, b) become (a cos - b sin, b cos + a sin)."""
    return (heads * cosines).add_(heads.roll(heads.shape[-1] // 2, -1).mul_(sines))
