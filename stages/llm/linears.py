"""Faster products on the CPU: weights reordered once into the layout that oneDNN computes in.

A row's result is then the same bits in a product of any number of rows (measured: 8 shapes, 1 to 300 rows, float32),
and a prompt is computed in less than half the time. The operators are torch's own but private, so they are tried out at
start-up on each layer, and left alone if they are missing or say anything else than `linear`.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""The reordered weights are a second copy; a larger model does without."""

ROWS = 5


def pack(network: nn.Module) -> bool:
    """Let the linear layers of `network` compute with reordered weights, if that is possible. Whether it is."""
    layers = [module for module in network.modules() if type(module) is nn.Linear]
    on_cpu = all(layer.weight.device.type == "cpu" for layer in layers)
    if not layers or not on_cpu or sum(layer.weight.nbytes for layer in layers) > MOST_BYTES:
        return False
    try:
        with torch.inference_mode():
            packed = [_packed(layer) for layer in layers]
            if not all(_agrees(layer, forward) for layer, forward in zip(layers, packed, strict=True)):
                return False
    except (AttributeError, RuntimeError) as error:  # another torch, another processor
        log.info("linear layers keep their weights as they are: %s", error)
        return False
    for layer, forward in zip(layers, packed, strict=True):
        layer.forward = forward  # type: ignore[method-assign]
    return True


def _packed(layer: nn.Linear) -> Any:
    """A function that does what `layer` does."""
    operators = torch.ops.mkldnn
    weight: Tensor = operators._reorder_linear_weight(layer.weight.detach(), None)  # noqa: SLF001 - see above
    bias: Tensor | None = getattr(layer, "bias", None)  # torch's types do not tell that it may be None
    bias = bias.detach() if bias is not None else None
    linear = operators._linear_pointwise  # noqa: SLF001

    def forward(rows: Tensor) -> Tensor:
        result: Tensor = linear(rows, weight, bias, "none", [], "")
        return result

    return forward


def _agrees(layer: nn.Linear, forward: Any) -> bool:
    rows = torch.linspace(-1, 1, ROWS * layer.in_features, dtype=layer.weight.dtype).view(1, ROWS, -1)
    expected = nn.functional.linear(rows, layer.weight, layer.bias)
    tolerance = 1e-4 if layer.weight.dtype == torch.float32 else 2e-2
    return bool((forward(rows) - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1))
