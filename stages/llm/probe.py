"""Try a model out before anybody relies on it: with our attention it must say what it says with the library's."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import ModelLoadError
from pipeline.messages import Prompt
from stages.llm import attention, kvfile
from stages.llm.forward import Work, forward
from stages.llm.kv import SequenceKV, rounded
from stages.llm.model import LoadedModel
from stages.llm.sequence import Sequence
from stages.tokens import brief

TOKENS = 13
"""Of two different texts: one computed at once, the other in two pieces, beside each other."""


def probe(model: LoadedModel) -> tuple[int, str]:
    """Switch `model` to our attention, and see that it answers as before.

    Gives the bytes of a token's keys and values, and what tells the bits that this machine computes for them.

    Raises:
        ModelLoadError: its kind of model needs more than the engine computes, or its weights are no numbers.
    """
    texts = [_text(model, 3), _text(model, 7)]
    try:
        with torch.inference_mode():
            expected = torch.stack([_alone(model, text) for text in texts])
            attention.register()
            model.network.set_attn_implementation(attention.NAME)
            got, kv = _together(model, texts)
    except Exception as error:
        raise ModelLoadError(model.name, f"the engine cannot run {_kind(model)}: {brief(error)}") from error
    if not expected.isfinite().all():
        raise ModelLoadError(model.name, "its weights are damaged: its logits are not finite numbers")
    tolerance = 1e-3 if expected.dtype == model.network.dtype else 5e-2
    if (got - expected).abs().max() > tolerance * expected.abs().max():
        raise ModelLoadError(model.name, f"the engine cannot run {_kind(model)}: it needs more than plain attention")
    return kv.bytes // rounded(len(texts[0])), kvfile.digest(kv)


def _text(model: LoadedModel, stride: int) -> list[int]:
    return [number * stride % model.tokens for number in range(1, min(TOKENS, model.context) + 1)]


def _alone(model: LoadedModel, text: list[int]) -> Tensor:
    """The last logits, [vocabulary], as the library computes them."""
    ids = torch.tensor([text], device=model.device)
    logits: Tensor = model.network(input_ids=ids, use_cache=False).logits[0, -1]
    return logits.float()


def _together(model: LoadedModel, texts: list[list[int]]) -> tuple[Tensor, SequenceKV]:
    """The last logits of both texts, [2, vocabulary], as the engine computes them, and what is kept of one."""
    one, other = (
        Sequence(n, Prompt("", "", tuple(text)), model.vocabulary, context=10**9) for n, text in enumerate(texts)
    )
    head = len(texts[0]) // 2
    forward(model, [Work(one, head)])
    one.advance(head)
    logits = forward(model, [Work(one, one.pending), Work(other, other.pending)])[:2]
    if not one.kv.bytes:
        raise NotImplementedError("its layers do not ask for attention")
    return logits, one.kv


def _kind(model: LoadedModel) -> str:
    return f"models of type {model.network.config.model_type}"
