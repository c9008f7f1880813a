"""How many blocks an engine has: as many as its sequences can need, and as the settings allow."""

from __future__ import annotations

from pipeline.errors import SettingsError
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import Tier, blocks_for
from stages.llm.models.model import LoadedModel


def pool_for(
    model: LoadedModel,
    draft: LoadedModel | None,
    *,
    most: int,
    kv_bytes: int,
    prefix_bytes: int,
    below: Tier | None = None,
) -> BlockPool:
    """Memory for `most` sequences at a time, as far as it goes, and for what they leave; a block at least.

    Raises:
        SettingsError: the device has not so much.
    """
    block = model.kv.block_bytes + (draft.kv.block_bytes if draft else 0)
    running = min(kv_bytes // block, most * blocks_for(model.context))
    count = max(1, running + prefix_bytes // block)
    try:
        return BlockPool(
            count,
            model.kv,
            draft=draft.kv if draft else None,
            fingerprint=model.fingerprint,
            keep=prefix_bytes > 0,
            below=below,
        )
    except RuntimeError as error:
        why = f"there is no memory for {count * block >> 20} MB of keys and values on {model.device}; set it lower"
        raise SettingsError("model.kv_mb", why) from error
