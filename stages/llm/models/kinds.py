"""Which kinds of models the engine can run. What a model needs beyond plain attention is refused by name, at load.

Some of it stands in the configuration. The rest is heard in one short call of the network, with an attention that only
notes what it is asked for: a window or a cap on scores shows in no short trial of the numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelLoadError
from stages.tokens import brief

log = logging.getLogger(__name__)

NAME = "penstock-listening"
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
WINDOWED = "sliding_attention"
LAYERS = frozenset({"full_attention", WINDOWED})
LISTENED = 3
"""Tokens in the call."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a layer asked of its attention; `features` are those that the engine does not have."""

    layer: int
    window: int | None
    features: tuple[str, ...]


def check_config(source: str, config: Any) -> None:
    """See that nothing in the configuration speaks against the model, before its weights are loaded.

    Raises:
        ModelLoadError: names the feature.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelLoadError(source, f"{config.model_type} is no causal language model but an encoder and a decoder")
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ()) - LAYERS
    if kinds:
        raise ModelLoadError(source, f"layers of type {', '.join(sorted(kinds))} are not supported")
    speaking: Mapping[str, bool] = {
        "latent attention (kv_lora_rank)": bool(getattr(text, "kv_lora_rank", None)),
        "position biases (ALiBi)": text.model_type == "bloom" or _says(text, "alibi"),
        "cross-attention": _says(text, "add_cross_attention"),
    }
    for feature, there in speaking.items():
        if there:
            raise _refused(source, config, feature)
    if any((getattr(text, name, None) or 0) > 1 for name in EXPERTS):  # each has as many rows as happen to come
        log.warning("%s is a mixture of experts: the last bits of its logits depend on what else is computed", source)


def check_network(source: str, network: Any) -> None:
    """See that the layers of `network` ask for nothing but what the engine computes.

    Raises:
        ModelLoadError: names the feature, or says that it cannot be found out.
    """
    config = network.config
    if any(name.rpartition(".")[2] == "sinks" for name, _ in network.named_parameters()):
        raise _refused(source, config, "attention sinks")
    try:
        heard = listen(network)
    except Exception as error:  # whatever the model's own code raises
        raise _refused(source, config, brief(error)) from error
    for asked in heard:
        if asked.features:
            raise _refused(source, config, f"attention with {', '.join(asked.features)}")
    text = config.get_text_config()
    count = text.num_hidden_layers
    if len({asked.layer for asked in heard}) < count:
        found = len({asked.layer for asked in heard})
        raise _refused(source, config, f"{count - found} of its {count} layers have another attention, or none")
    for asked in heard:
        if asked.window != _window(text, asked.layer):
            what = f"layer {asked.layer} asks for a window of {asked.window}, its mask for {_window(text, asked.layer)}"
            raise _refused(source, config, what)


def listen(network: Any) -> list[Asked]:
    """What the layers of `network` ask of their attention, in a call with a few tokens."""
    from transformers import AttentionInterface

    heard: list[Asked] = []
    AttentionInterface.register(NAME, _note)
    own = network.config._attn_implementation  # noqa: SLF001 - has no public name
    network.set_attn_implementation(NAME)
    ids = torch.zeros(1, LISTENED, dtype=torch.long, device=network.device)
    try:
        with torch.inference_mode():
            network(
                input_ids=ids,
                position_ids=torch.arange(LISTENED, device=ids.device)[None],
                use_cache=False,
                heard=heard,
            )
    finally:
        network.set_attn_implementation(own)
    return heard


def _note(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    heard: list[Asked] | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Stands for the attention, and adds to `heard`; the result is zeros, [1, T, heads, size]."""
    if heard is None:
        raise NotImplementedError("its layers keep from their attention what is passed to the model")
    unknown: Mapping[str, bool] = {
        "sinks": others.get("s_aux") is not None,
        "position biases": others.get("position_bias") is not None,
        "a mask of its own": attention_mask is not None,
        "a look ahead": others.get("is_causal") is False or getattr(module, "is_causal", True) is False,
        "keys from elsewhere": key.shape[2] != query.shape[2],
        "keys and values of different sizes": key.shape != value.shape,
    }
    features = tuple(feature for feature, there in unknown.items() if there)
    heard.append(Asked(int(module.layer_idx), sliding_window, features))  # type: ignore[arg-type]
    return value.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None


def _window(config: Any, layer: int) -> int | None:
    """What the library's mask lets that layer see: so many of the latest tokens; None: all."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return window if kinds is None or kinds[layer] == WINDOWED else None


def _says(config: Any, name: str) -> bool:
    nested = getattr(config, "attn_config", None)
    return bool(getattr(config, name, False) or getattr(nested, name, False))


def _refused(source: str, config: Any, feature: str) -> ModelLoadError:
    return ModelLoadError(source, f"the engine cannot run models of type {config.model_type}: {feature}")
