"""Linear layers as products that are fast on the CPU: weights reordered once into the layout that oneDNN computes in.

A row's result is then the same bits in a product of any number of rows (measured: 8 shapes, 1 to 300 rows, float32),
and a prompt is computed in less than half the time. The operators are torch's own but private, so they are tried out at
start-up on each layer, and left alone if they are missing or say anything else than `linear`. `int8.py` has the
products of integers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from stages.llm.models import int8

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""The reordered weights are a second copy; a larger model does without."""

ROWS = 5

Product = Callable[[Tensor], Tensor]
"""What a linear layer does: [..., inputs] to [..., outputs]."""


def layers(network: nn.Module) -> list[Any]:
    """The linear layers of `network` that are as they came: those of torch, and the transposed ones of GPT-2."""
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D)
    return [module for module in network.modules() if type(module) in kinds and "forward" not in vars(module)]


def pack(network: nn.Module) -> bool:
    """Let the linear layers of `network` compute with reordered weights, if that is possible. Whether it is."""
    found = layers(network)
    on_cpu = all(layer.weight.device.type == "cpu" for layer in found)
    if not found or not on_cpu or not fits(network):
        return False
    products = [packed(*matrix(layer)) for layer in found]
    if None in products:
        return False
    for layer, product in zip(found, products, strict=True):
        layer.forward = product
    return True


def quantize(network: nn.Module) -> None:
    """Let the linear layers of `network` compute with integers of 8 bits, and forget their weights."""
    for layer in layers(network):
        layer.forward = int8.quantized(*matrix(layer))
        layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def quantized(network: nn.Module) -> bool:
    """Whether `network` computes with integers."""
    return any(map(quantized_itself, network.modules()))


def forget(network: nn.Module, *, also_products: bool) -> None:
    """Let go of second copies of rounded weights; with `also_products` only what was `joined` computes any more."""
    for module in [module for module in network.modules() if quantized_itself(module)]:
        product: Any = module.forward
        product.forget()
        if also_products:
            del module.forward


def quantized_itself(module: nn.Module) -> bool:
    """Whether `module` is a linear layer that computes with integers."""
    return isinstance(vars(module).get("forward"), int8.Int8)


def joined(parts: Sequence[Any]) -> Product:
    """One product with the outputs of all `parts` behind each other, the fastest there is for their weights."""
    if all(map(quantized_itself, parts)):
        return int8.joined([part.forward for part in parts])
    weights, biases = zip(*map(matrix, parts), strict=True)
    weight = torch.cat(weights) if len(parts) > 1 else weights[0]
    bias = None
    if any(part is not None for part in biases):
        zeros = (weight.new_zeros(len(one)) for one in weights)
        bias = torch.cat([zero if part is None else part for part, zero in zip(biases, zeros, strict=True)])
    product = packed(weight, bias) if weight.device.type == "cpu" else None
    if product is None and len(parts) > 1:  # computed as it is: one memory for both
        for part, view in zip(parts, weight.split([len(one) for one in weights]), strict=True):
            part.weight = nn.Parameter(view, requires_grad=False)
    return product or plain(weight, bias)


def fits(network: nn.Module) -> bool:
    """Whether there may be a second copy of the linear layers' weights."""
    held: int = sum(layer.weight.nbytes for layer in layers(network))
    return held <= MOST_BYTES


def matrix(layer: Any) -> tuple[Tensor, Tensor | None]:
    """The weights of a linear layer, [outputs, inputs], and its bias if it has one."""
    weight = layer.weight.detach()
    bias = getattr(layer, "bias", None)
    return weight if isinstance(layer, nn.Linear) else weight.t(), None if bias is None else bias.detach()


def plain(weight: Tensor, bias: Tensor | None) -> Product:
    """The product as torch computes it."""
    return lambda rows: linear(rows, weight, bias)


def packed(weight: Tensor, bias: Tensor | None) -> Product | None:
    """The product with reordered weights; None where that is not possible."""
    try:
        with torch.inference_mode():
            product = _packed(weight, bias)
            return product if _agrees(product, weight, bias) else None
    except (AttributeError, RuntimeError) as error:  # another torch, another processor
        log.info("linear layers keep their weights as they are: %s", error)
        return None


def _packed(weight: Tensor, bias: Tensor | None) -> Product:
    operators = torch.ops.mkldnn
    reordered: Tensor = operators._reorder_linear_weight(weight.contiguous(), None)  # noqa: SLF001 - see above
    operator = operators._linear_pointwise.default  # noqa: SLF001

    def product(rows: Tensor) -> Tensor:
        result: Tensor = operator(rows, reordered, bias, "none", [], "")
        return result

    return product


def _agrees(product: Product, weight: Tensor, bias: Tensor | None) -> bool:
    rows = torch.linspace(-1, 1, ROWS * weight.shape[1], dtype=weight.dtype).view(1, ROWS, -1)
    expected = linear(rows, weight, bias)
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    return bool((product(rows) - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1))
