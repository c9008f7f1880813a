"""The steps of a model of the Llama family, computed by the compiled step: the network's weights in its layout."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stages.llm.models import slim
from stages.llm.models.native import library as lib
from stages.llm.models.steps import Place

PANEL = 64
"""Outputs whose weights lie together."""

SHARED = 32
"""Gates in a panel; their ups are beside them."""

EACH = {torch.float32: 1, torch.bfloat16: 2}
"""Types of weights it knows, and how many of each are in 32 bits."""

ALIGNED = 64
"""Bytes of a vector."""

LONGEST = 256
"""Elements of a head at most."""


class _Scratch(threading.local):
    """Memory for a step, each thread's own: a model may be used by several."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def room(self, wanted: int) -> int:
        """The address of so many bytes, at a multiple of 64."""
        if self._memory.numel() < wanted + ALIGNED:
            self._memory = torch.empty(wanted + wanted // 2 + ALIGNED, dtype=torch.uint8)
        address = self._memory.data_ptr()
        return address + -address % ALIGNED


class NativeSteps:
    """Computes the steps of `network`, which must be `known`, for up to `context` positions."""

    def __init__(self, network: Any, context: int) -> None:
        model, config = network.model, network.config
        self._kept: list[Any] = []
        self._each = EACH[network.dtype]
        self._threads = torch.get_num_threads
        self._vocabulary: int = network.lm_head.weight.shape[0]
        self._layers = (lib.Layer * len(model.layers))(*map(self._layer, model.layers))
        own = model.layers[0].self_attn
        self._model = lib.Model(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            size=own.head_dim,
            layers=len(model.layers),
            vocabulary=self._vocabulary,
            positions=context,
            eps=model.norm.variance_epsilon,
            scale=own.scaling,
            table=self._kept_at(model.embed_tokens.weight.detach().contiguous()),
            turns=self._kept_at(_turns(model.rotary_emb, context)),
            norm=self._floats(model.norm.weight),
            head=self._panels(network.lm_head.weight),
            layer=self._layers,
        )
        found = lib.library()
        assert found is not None
        self._library = found
        self._scratch = _Scratch()

    def record(self, store: Tensor, context: int) -> None:
        """Nothing is recorded: a step is one call already."""

    def warm(self, tell: Callable[[float], None]) -> None:
        """There is nothing to warm."""

    def __call__(self, ids: Sequence[int], wanted: Sequence[int], places: Sequence[Place], store: Tensor) -> Tensor:
        """The logits at the rows `wanted`, [n, vocabulary] in float32; those of some row where none is.

        `store` is [blocks, layers, 2, heads, BLOCK, size]; what stands in a block is in an order of its own.

        Raises:
            IndexError: something would lie beyond the model, or beyond the store.
        """
        chosen = array("i", wanted or (0,))
        tokens, blocks, spans = array("i", ids), array("i"), array("q")
        for place in places:
            spans.extend((place.row, place.count, place.start, len(blocks), len(place.blocks)))
            blocks.extend(place.blocks)
        logits = torch.empty((len(chosen), self._vocabulary), dtype=torch.float32)
        step = lib.Step(
            rows=len(tokens),
            spans=len(places),
            wanted=len(chosen),
            threads=self._threads(),
            stored=len(store),
            ids=_at(tokens),
            blocks=_at(blocks),
            choose=_at(chosen),
            span=_at(spans),
            store=store.data_ptr(),
            logits=logits.data_ptr(),
        )
        step.scratch = self._scratch.room(self._library.scratch_bytes(self._model, step, self._each))
        if wrong := self._library.step(self._model, step, self._each):
            raise IndexError(f"a step with {wrong.decode()}")
        return logits

    def _layer(self, layer: Any) -> lib.Layer:
        own, mlp = layer.self_attn, layer.mlp
        three = (own.q_proj, own.k_proj, own.v_proj)
        gates, ups = (part.weight.detach().unflatten(0, (-1, SHARED)) for part in (mlp.gate_proj, mlp.up_proj))
        return lib.Layer(
            before=self._floats(layer.input_layernorm.weight),
            between=self._floats(layer.post_attention_layernorm.weight),
            query_norm=self._floats(own.q_norm.weight) if hasattr(own, "q_norm") else None,
            key_norm=self._floats(own.k_norm.weight) if hasattr(own, "k_norm") else None,
            qkv=self._panels(torch.cat([part.weight for part in three])),
            out=self._panels(own.o_proj.weight),
            gate_up=self._panels(torch.cat([gates, ups], 1).flatten(0, 1)),
            down=self._panels(mlp.down_proj.weight),
            qkv_bias=self._bias(three),
            out_bias=self._bias((own.o_proj,)),
            window=slim.window(own) or 0,
        )

    def _panels(self, weight: Tensor) -> int:
        """[outputs, inputs] as [panel, lane, output], where a lane is one number or two that follow each other."""
        weight = weight.detach()
        missing = -len(weight) % PANEL
        weight = torch.nn.functional.pad(weight, (0, 0, 0, missing))
        panels = weight.view(-1, PANEL, weight.shape[1] // self._each, self._each).transpose(1, 2)
        return self._kept_at(panels.contiguous())

    def _bias(self, parts: Sequence[Any]) -> int | None:
        if all(part.bias is None for part in parts):
            return None
        biases = [part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in parts]
        return self._floats(torch.cat(biases))

    def _floats(self, numbers: Tensor) -> int:
        return self._kept_at(numbers.detach().float().contiguous())

    def _kept_at(self, numbers: Tensor) -> int:
        self._kept.append(numbers)
        return numbers.data_ptr()


def known(network: Any) -> bool:
    """Whether the compiled step can be had, and computes `network`."""
    if not slim.known(network) or network.dtype not in EACH or network.device.type != "cpu":
        return False
    config, size = network.config, network.model.layers[0].self_attn.head_dim
    even = config.hidden_size % 16 == 0 and config.intermediate_size % SHARED == 0 and size % 16 == 0
    plain = all(part.bias is None for layer in network.model.layers for part in _unbiased(layer.mlp))
    return even and plain and size <= LONGEST and network.lm_head.bias is None and lib.library() is not None


def _turns(rotary: Any, context: int) -> Tensor:
    """Cosines and sines of all positions, [context, 2, size / 2]."""
    cosines, sines = slim.turns(rotary, context, torch.float32)[:, :, 0].unbind(1)
    half = cosines.shape[1] // 2
    return torch.stack([cosines[:, :half], sines[:, half:]], 1).contiguous()


def _unbiased(mlp: Any) -> tuple[Any, ...]:
    return mlp.gate_proj, mlp.up_proj, mlp.down_proj


def _at(numbers: array[int]) -> int:
    return numbers.buffer_info()[0]
