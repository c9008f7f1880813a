"""Products with weights of 8 bits: y[r, o] = sum_i x[r, i] w[o, i], a scale for each output and for each row.

On the CPU the rows are rounded to 8 bits, too (each by its own peak, as it comes), and what is multiplied and added are
integers: exact, so a row's result is the same bits in any company, in any order of adding, on any machine. On a GPU
only the weights are rounded. There is nothing to calibrate:

    w'[o, i] = round(w[o, i] / s[o]),   s[o] = max_i |w[o, i]| / 127,     x'[r, i] likewise with t[r]
    y[r, o] = t[r] s[o] sum_i x'[r, i] w'[o, i]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

log = logging.getLogger(__name__)

PEAK = 127
LARGE = 1 << 20
"""Weights from which on reordering them pays (measured: 4 rows of 256 x 512 take 8 µs without and 19 with it, those of
768 x 3072 110 and 67)."""

EXACT = 1 << 10
"""Inputs of which the sum of products is exact in float32: 127 * 127 * 1024 < 2^24."""

TINY = 1e-30

Sums = Callable[[Tensor], Tensor]
"""From rows of integers, [rows, inputs] in int8, to their exact sums of products, [rows, outputs]."""


class Int8:
    """A linear layer with `weight` ([outputs, inputs], int8) and the `scale` of each output, in float32."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.weight, self.scale, self.bias = weight, scale, bias
        on_cpu = weight.device.type == "cpu"
        self._product = _of_integers(exact_sums(weight), scale) if on_cpu else _weight_only(weight, scale)

    def __call__(self, rows: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs], of the same type."""
        result = self._product(rows.reshape(-1, rows.shape[-1])).to(rows.dtype)
        if self.bias is not None:
            result = result + self.bias
        return result.view(*rows.shape[:-1], -1)

    def forget(self) -> None:
        """Let go of the weights, but for what computing needs; nothing can be `joined` with it any more."""
        self.weight = self.weight.new_empty(0)


def _of_integers(sums: Sums, scale: Tensor) -> Callable[[Tensor], Tensor]:
    """The product with rounded rows, in float32."""

    def product(rows: Tensor) -> Tensor:
        rows = rows.float()
        peaks = rows.abs().amax(-1, keepdim=True).clamp_(min=TINY)
        integers = (rows * (PEAK / peaks)).round_().to(torch.int8)
        return (sums(integers) * scale).mul_(peaks)

    return product


def quantized(weight: Tensor, bias: Tensor | None) -> Int8:
    """The layer with these weights ([outputs, inputs]), rounded."""
    weight = weight.float()
    peaks = weight.abs().amax(1).clamp_(min=TINY)
    rounded = (weight * (PEAK / peaks)[:, None]).round_().to(torch.int8)
    peaks /= PEAK * PEAK if weight.device.type == "cpu" else PEAK  # the rows' own share, once for all
    return Int8(rounded, peaks, bias)


def joined(parts: Sequence[Int8]) -> Int8:
    """One layer with the outputs of all `parts` behind each other, the same numbers."""
    if len(parts) == 1:
        return parts[0]
    weight, scale = torch.cat([part.weight for part in parts]), torch.cat([part.scale for part in parts])
    if all(part.bias is None for part in parts):
        return Int8(weight, scale, None)
    biases = [scale.new_zeros(len(part.scale)) if part.bias is None else part.bias for part in parts]
    return Int8(weight, scale, torch.cat(biases))


def exact_sums(weight: Tensor) -> Sums:
    """The fastest way there is to the sums, tried out at the extremes; the plain way where none is right.

    On processors without VNNI some libraries let sums of products overflow at 16 bits.
    """
    for way in (_packed_sums, _matrix_sums) if weight.numel() >= LARGE else (_matrix_sums,):
        try:
            with torch.inference_mode():
                sums = way(weight)
                if _agrees(sums, weight):
                    return sums
        except (AttributeError, RuntimeError) as error:  # another torch, another processor
            log.info("products of integers are computed in another way: %s", error)
    return _plain_sums(weight)


def _agrees(sums: Sums, weight: Tensor) -> bool:
    inputs = weight.shape[1]
    mixed = (torch.arange(3 * inputs).view(3, -1) * 37 % 255 - PEAK).to(torch.int8)
    rows = torch.cat([mixed, torch.full((1, inputs), PEAK).to(torch.int8), weight[:1], -weight[-1:]])
    return all(torch.equal(sums(rows[:n]).float(), _plain_sums(weight)(rows[:n]).float()) for n in (1, len(rows)))


def _packed_sums(weight: Tensor) -> Sums:
    """By oneDNN with reordered weights. It wants rows without sign: it is fifty times slower with one."""
    operators = torch.ops.onednn
    reordered = operators.qlinear_prepack(weight, None)
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)
    operator = operators.qlinear_pointwise.default

    def sums(rows: Tensor) -> Tensor:
        unsigned = rows.view(torch.uint8) ^ 128
        return operator(  # type: ignore[no-any-return]
            unsigned, 1.0, 128, reordered, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return sums


def _matrix_sums(weight: Tensor) -> Sums:
    """By torch's product of integer matrices."""
    columns = weight.t()
    product: Callable[[Tensor, Tensor], Tensor] = torch._int_mm  # noqa: SLF001 - has no public name
    return lambda rows: product(rows, columns)


def _plain_sums(weight: Tensor) -> Sums:
    """By products of floats, so few at a time that no sum is rounded."""
    parts = weight.split(EXACT, dim=1)

    def sums(rows: Tensor) -> Tensor:
        pieces = rows.split(EXACT, dim=1)
        return sum(  # type: ignore[return-value]
            linear(piece.float(), part.float()).double() for piece, part in zip(pieces, parts, strict=True)
        )

    return sums


def _weight_only(weight: Tensor, scale: Tensor) -> Callable[[Tensor], Tensor]:
    """For a GPU, where the weights' bytes are what costs. Not run on one yet."""

    def plain(rows: Tensor) -> Tensor:
        return linear(rows, weight.to(rows.dtype)) * scale.to(rows.dtype)

    def packed(rows: Tensor) -> Tensor:
        result: Tensor = torch._weight_int8pack_mm(rows, weight, scale.to(rows.dtype))  # noqa: SLF001 - no public name
        return result

    rows = torch.linspace(-1, 1, 4 * weight.shape[1], device=weight.device).view(4, -1).bfloat16()
    try:
        difference = (packed(rows) - plain(rows)).abs().max()
    except (AttributeError, RuntimeError) as error:
        log.info("weights of 8 bits are multiplied in another way: %s", error)
        return plain
    return packed if bool(difference <= 2e-2 * plain(rows).abs().max().clamp(min=1)) else plain
