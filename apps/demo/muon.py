"""Muon: momentum whose matrices are made orthogonal before the step (Jordan et al., 2024)."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values near 1, by Newton-Schulz in bfloat16; (n, rows, columns)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    out: Tensor = x.mT if tall else x
    return out


class Muon:
    """For the inner matrices of a model; equal shapes are worked on together."""

    def __init__(self, weights: Iterable[Tensor], momentum: float = 0.95) -> None:
        self.groups: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for weight in weights:
            self.groups[tuple(weight.shape)].append(weight)
        self.momentum = momentum
        self.state = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One Nesterov step from the gradients that the weights carry."""
        for shape, group in self.groups.items():
            grads = torch.stack([weight.grad for weight in group if weight.grad is not None])
            moved = self.state[shape].lerp_(grads, 1 - self.momentum)
            update = orthogonal(grads.lerp(moved, self.momentum)).float()
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for weight, change in zip(group, update, strict=True):
                weight.mul_(1 - rate * 0.01).add_(change, alpha=-scale)
                weight.grad = None
