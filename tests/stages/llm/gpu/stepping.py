"""Steps of a model on a GPU, or on the CPU in its stead: in plain torch, with "recorded" ones called again."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK, blocks_for
from stages.llm.gpu.graphs import Call
from stages.llm.gpu.steps import Steps
from stages.llm.models.model import LoadedModel
from stages.llm.models.steps import Place
from tests.stages.llm.running import some_ids


class Recorder:
    """Records a call by remembering it, and counts what it replays."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, call: Call) -> Call:
        """A call that does the same again."""
        self.captured += 1
        call()

        def replay() -> None:
            self.replayed += 1
            call()

        return replay


class Text:
    """`count` sequences of a model, of so many tokens, computed step by step in a store with blocks taken in no order.

    What is not written yet is no number, and must not be read.
    """

    def __init__(self, model: LoadedModel, steps: Steps, *, count: int = 8, length: int = 200) -> None:
        blocks = count * blocks_for(length)
        self.model, self.steps = model, steps
        self.store = torch.full((blocks, *model.kv.block), float("nan"), dtype=model.kv.dtype, device=model.device)
        self._free = random.Random(0).sample(range(blocks), blocks)
        self._blocks: dict[int, list[int]] = {}
        self.ids = {number: some_ids(length, number) for number in range(count)}
        self.computed = dict.fromkeys(self.ids, 0)

    def step(self, counts: dict[int, int]) -> Tensor:
        """Compute so many more tokens of these sequences; the logits after the last of each."""
        ids: list[int] = []
        places, wanted = [], []
        for number, count in counts.items():
            start = self.computed[number]
            blocks = self._blocks.setdefault(number, [])
            while len(blocks) * BLOCK < start + count:
                blocks.append(self._free.pop())
            places.append(Place(len(ids), count, start, blocks))
            ids += self.ids[number][start : start + count]
            wanted.append(len(ids) - 1)
            self.computed[number] += count
        return self.steps(ids, wanted, places, self.store)


def right(model: LoadedModel, ids: list[int]) -> Tensor:
    """The logits after `ids`, as the library computes them."""
    library = type(model.network)(type(model.network.config)(**model.network.config.to_dict()))
    library.load_state_dict(model.network.state_dict())
    library.set_attn_implementation("eager")
    library.to(device=model.device, dtype=model.network.dtype)
    with torch.inference_mode():
        logits: Tensor = library.eval()(torch.tensor([ids], device=model.device)).logits[0, -1]
    return logits
