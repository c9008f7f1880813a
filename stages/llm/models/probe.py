"""Try a model out before anybody relies on it: with our attention it must say what it says with the library's."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import ModelLoadError
from pipeline.messages import Prompt
from stages.llm.cache import kvfile
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import Kept, Shape, blocks_for
from stages.llm.models import attention, linears
from stages.llm.models.forward import Work, forward
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence
from stages.tokens import brief

TOKENS = 13
"""Of two different texts: one computed at once, the other in two pieces, beside each other."""


def probe(model: LoadedModel) -> tuple[Shape, str]:
    """Switch `model` to our attention, and see that it answers as before.

    Gives what is kept of a token, and what tells the bits that this machine computes for them.

    Raises:
        ModelLoadError: its kind of model needs more than the engine computes, or its weights are no numbers.
    """
    texts = [_text(model, 3), _text(model, 7)]
    try:
        with torch.inference_mode():
            expected = torch.stack([_alone(model, text) for text in texts])
            attention.register()
            model.network.set_attn_implementation(attention.NAME)
            shape = _survey(model)
            got, kept = _together(model, shape, texts)
    except Exception as error:  # whatever the model's own code raises
        raise ModelLoadError(model.name, f"the engine cannot run {_kind(model)}: {brief(error)}") from error
    if not expected.isfinite().all():
        raise ModelLoadError(model.name, "its weights are damaged: its logits are not finite numbers")
    exact = expected.dtype == model.network.dtype and not linears.quantized(model.network)
    tolerance = 1e-3 if exact else 5e-2  # a last bit may decide how a number is rounded to 8 bits
    if (got - expected).abs().max() > tolerance * expected.abs().max():
        raise ModelLoadError(model.name, f"the engine cannot run {_kind(model)}: it needs more than plain attention")
    return shape, kvfile.digest(kept)


def _text(model: LoadedModel, stride: int) -> list[int]:
    return [number * stride % model.tokens for number in range(1, min(TOKENS, model.context) + 1)]


def _alone(model: LoadedModel, text: list[int]) -> Tensor:
    """The last logits, [vocabulary], as the library computes them."""
    ids = torch.tensor([text], device=model.device)
    logits: Tensor = model.network(input_ids=ids, use_cache=False).logits[0, -1]
    return logits.float()


def _survey(model: LoadedModel) -> Shape:
    """What the model keeps of a token."""
    survey = attention.Survey()
    model.network(
        input_ids=torch.tensor([[0]], device=model.device),
        position_ids=torch.tensor([[0]], device=model.device),
        use_cache=False,
        logits_to_keep=torch.tensor([0], device=model.device),
        ragged=survey,
    )
    return survey.shape


def _together(model: LoadedModel, shape: Shape, texts: list[list[int]]) -> tuple[Tensor, Kept]:
    """The last logits of both texts, [2, vocabulary], as the engine computes them, and what is kept of one."""
    one, other = (
        Sequence(n, Prompt("", "", tuple(text)), model.vocabulary, context=10**9) for n, text in enumerate(texts)
    )
    pool = BlockPool(2 * blocks_for(TOKENS), shape)
    for sequence in (one, other):
        sequence.place(pool.table()[0])
        sequence.reserve(TOKENS)
    head = len(texts[0]) // 2
    forward(model, [Work(one, head)])
    one.advance(head)
    logits = forward(model, [Work(one, one.pending), Work(other, other.pending)])[:2]
    return logits, pool.read(one.table, texts[0])


def _kind(model: LoadedModel) -> str:
    return f"models of type {model.network.config.model_type}"
