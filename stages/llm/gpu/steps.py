"""A model's steps on an accelerator: what a batch needs is sent there in one copy, and small steps are replayed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stages.llm.gpu.attention import Paged, has_kernels
from stages.llm.gpu.graphs import Capture, CudaCapture, Graphs
from stages.llm.gpu.tables import Tables, blocks_of, tables_for_step
from stages.llm.models.steps import Place

if TYPE_CHECKING:
    from stages.llm.cache.blocks import BlockPool
    from stages.llm.models.model import LoadedModel

log = logging.getLogger(__name__)


class Steps:
    """Computes the steps of `network`. Small ones are recorded by what `capture` makes, after `record` was called."""

    def __init__(self, network: Any, capture: Callable[[], Capture] | None = None) -> None:
        self._network, self._capture = network, capture
        self._graphs: Graphs | None = None
        self._cuts: set[int] = set()
        """How the kernels cut the rows: known from the first step on, so that it is sent with all else."""

    def record(self, store: Tensor, context: int) -> None:
        """From now on record small steps of sequences in `store`, of up to `context` positions; those of no other."""
        if self._capture is not None:
            self._graphs = None  # before others take memory
            self._graphs = Graphs(self.compute, store, context=context, capture=self._capture())

    def warm(self, tell: Callable[[float], None] = lambda _share: None) -> None:
        """Record all of them now, so that no answer waits for it later. `tell` how much of it is done."""
        if self._graphs is not None:
            self._graphs.warm(tell)

    @torch.inference_mode()
    def __call__(self, ids: Sequence[int], wanted: Sequence[int], places: Sequence[Place], store: Tensor) -> Tensor:
        """The logits at the rows `wanted`, [n, vocabulary] in float32; those of some row where none is."""
        wanted = wanted or [0]
        if self._graphs is not None:
            logits = self._graphs(ids, wanted, places, store)
            if logits is not None:
                return logits
        tables = tables_for_step(len(ids), len(wanted), len(places), blocks_of(places), store, self._cuts)
        tables.fill(places, {"ids": ids, "wanted": wanted})
        logits = self.compute(tables, store).float()
        self._cuts |= tables.cuts
        return logits

    def compute(self, tables: Tables, store: Tensor) -> Tensor:
        """The logits of what `tables` hold, [n, vocabulary]: calls on the device alone, which can be recorded."""
        logits: Tensor = self._network(
            input_ids=tables.mirror.part("ids").long()[None],
            position_ids=tables.positions.clamp(min=0).long()[None],
            use_cache=False,
            logits_to_keep=tables.mirror.part("wanted").long(),
            ragged=Paged(tables, store),
        ).logits[0]
        return logits


def steps_for(network: Any, device: torch.device, *, graphs: bool) -> Steps | None:
    """What computes the steps of `network` there; None on the CPU, which has its own way. Graphs are CUDA's alone."""
    if device.type == "cpu":
        return None
    return Steps(network, CudaCapture if graphs and has_kernels(device.type) else None)


def record_steps(model: LoadedModel, draft: LoadedModel | None, pool: BlockPool) -> None:
    """Have small steps of sequences in `pool` recorded, of the model and of its draft, where the device can."""
    stores = [(model, pool.store), *([(draft, pool.draft)] if draft else [])]
    for one, store in stores:
        if one.steps is not None:
            one.steps.record(store, one.context)
            one.steps.warm(functools.partial(_tell, one.name))


def _tell(name: str, share: float) -> None:
    log.info("%s: recording small steps, %.0f %% done", name, 100 * share)
