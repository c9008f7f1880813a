"""Attention of a ragged batch on a GPU or another accelerator: by our kernels, or in plain torch without Triton."""

from __future__ import annotations

import functools
import importlib.util

from torch import Tensor

from stages.llm.gpu import plain
from stages.llm.gpu.tables import Tables


class Paged:
    """The batch as the attention sees it there: `tables`, and the `store` [blocks, layers, 2, KV heads, BLOCK, d]."""

    def __init__(self, tables: Tables, store: Tensor) -> None:
        self.tables, self.store = tables, store

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """Store the new keys and values of `layer`, then attend each query to its own sequence.

        Shapes: query [1, H, T, d]; key, value [1, KV heads, T, d]; the result [1, T, H, d].
        """
        store, tables = self.store[:, layer], self.tables
        queries, keys, values = (heads[0].transpose(0, 1) for heads in (query, key, value))
        scaling = query.shape[3] ** -0.5 if scaling is None else scaling
        if not has_kernels(query.device.type):
            plain.write(store, keys, values, tables)
            return plain.attend(queries, store, tables, scaling=scaling, window=window, softcap=softcap)[None]
        from stages.llm.gpu import launch

        launch.write(store, _packed(keys), _packed(values), tables.slots)
        return launch.attend(_packed(queries), store, tables, scaling=scaling, window=window, softcap=softcap)[None]


@functools.cache
def has_kernels(device: str) -> bool:
    """Whether our kernels run on devices of this type."""
    return device == "cuda" and importlib.util.find_spec("triton") is not None


def _packed(heads: Tensor) -> Tensor:
    """With the numbers of a head beside each other, as the kernels read them."""
    return heads if heads.stride(2) == 1 else heads.contiguous()
