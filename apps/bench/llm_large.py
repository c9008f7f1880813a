"""A pair of models large enough that memory decides, made here: random weights, the draft's luck set by construction.

The next token is a function of the last one alone. Each token's row of the output layer is the embedding of the token
before it in one long cycle through the vocabulary, so that an answer never repeats itself; the draft's rows agree with
the target's for a chosen share of the tokens. Between embedding and output lie ordinary layers with random weights,
whose outputs are scaled down so that the argmax stays clear of them. So a step costs what it costs in any Llama of that
shape, and how often a guess is right is known; what is said means nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from stages.usercache import user_cache

VOCABULARY = 32_000
CONTEXT = 4096
SEED = 5
NOISE = 0.3
"""What the layers' outputs are scaled by: they then change the last hidden state by about a quarter."""


class Shape(NamedTuple):
    """The size of a Llama with heads of 64, four query heads to each of the keys."""

    hidden: int
    layers: int
    inner: int


TARGET = Shape(hidden=768, layers=12, inner=2048)
DRAFT = Shape(hidden=256, layers=2, inner=704)


def cache_folder() -> Path:
    """Where such models are kept."""
    return user_cache("bench") or Path(gettempdir()) / "penstock-bench"


def large_pair(
    tokenizer: Path, agreement: float, *, target: Shape = TARGET, draft: Shape = DRAFT, vocabulary: int = VOCABULARY
) -> tuple[Path, Path]:
    """The folders of target and draft, made now if they are not there; the tokenizer is that in the folder `tokenizer`.

    `agreement` is the share of tokens after which the draft is right.
    """
    numbers = [*target, *draft, vocabulary, round(1000 * agreement), SEED]
    folder = cache_folder() / f"pair-{'-'.join(map(str, numbers))}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=folder.parent))
        _make(made, tokenizer, agreement, (target, draft), vocabulary)
        made.rename(folder)  # all of it or nothing
    return folder / "target", folder / "draft"


def _make(folder: Path, tokenizer: Path, agreement: float, shapes: tuple[Shape, Shape], vocabulary: int) -> None:
    chance = torch.Generator().manual_seed(SEED)
    follows = cycle(vocabulary, chance)
    for name, shape, successor in zip(
        ("target", "draft"), shapes, (follows, mistaken(follows, agreement, chance)), strict=True
    ):
        model = _model(shape, successor, chance)
        model.save_pretrained(folder / name)
        for file in tokenizer.glob("tokenizer*.json"):
            shutil.copy(file, folder / name)
        shutil.copy(tokenizer / "chat_template.jinja", folder / name)


def cycle(vocabulary: int, chance: torch.Generator) -> Tensor:
    """What follows each token, [vocabulary]: all of them once, and then the first again."""
    order = torch.randperm(vocabulary, generator=chance)
    follows = torch.empty_like(order)
    follows[order] = order.roll(-1)
    return follows


def mistaken(follows: Tensor, agreement: float, chance: torch.Generator) -> Tensor:
    """`follows` with the successors of a share of the tokens exchanged among them: right after `agreement` of them."""
    wrong = torch.randperm(len(follows), generator=chance)[: round((1 - agreement) * len(follows))]
    guessed = follows.clone()
    guessed[wrong] = follows[wrong.roll(1)]
    return guessed


def _model(shape: Shape, follows: Tensor, chance: torch.Generator) -> Any:
    heads = shape.hidden // 64
    config = LlamaConfig(
        vocab_size=len(follows),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=5,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
                continue
            weight.normal_(0.0, config.initializer_range, generator=chance)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(NOISE)
        embedding = model.model.embed_tokens.weight
        embedding.normal_(0.0, 1.0, generator=chance)
        model.lm_head.weight[follows] = embedding / shape.hidden**0.5
    made: Any = model
    return made.to(torch.bfloat16)
