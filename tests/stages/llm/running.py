"""What the tests of the LLM stage have in common."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import torch

from pipeline.messages import FinishReason, Prompt, Sampling
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import blocks_for
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence
from stages.llm.stage import Engine

DEADLINE_S = 20.0


def make_prompt(ids: Iterable[int], *, session: str = "s", emitted: Iterable[int] = (), **sampling: Any) -> Prompt:
    """A prompt with these ids; the turn is not of interest."""
    return Prompt(session, "t", tuple(ids), Sampling(**sampling), tuple(emitted))


def placed(model: LoadedModel, prompts: Iterable[Prompt], *, draft: LoadedModel | None = None) -> list[Sequence]:
    """Sequences with a pool of their own that has memory for all they may become, nothing of which is computed."""
    sequences = [Sequence(n, prompt, model.vocabulary, context=model.context) for n, prompt in enumerate(prompts)]
    blocks = sum(blocks_for(sequence.most) for sequence in sequences)
    pool = BlockPool(blocks, model.kv, draft=draft.kv if draft else None)
    for sequence in sequences:
        sequence.place(pool.table()[0])
        assert sequence.reserve(sequence.most)
    return sequences


def some_ids(length: int, seed: int, vocabulary: int = 512) -> list[int]:
    """Ids drawn at random, control tokens left out."""
    drawn = random.Random(seed)
    return [drawn.randrange(6, vocabulary) for _ in range(length)]


async def answer(engine: Engine, prompt: Prompt) -> tuple[list[int], FinishReason | None, int]:
    """The whole answer: its ids, how it ended, and how much of the prompt was cached."""
    ids: list[int] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(engine.generate(prompt)) as runs:
        async for run in runs:
            ids += run.ids
            if run.finish is not None:
                return ids, run.finish, run.cached_tokens
    return ids, None, 0


async def begin(engine: Engine, prompt: Prompt, tokens: int) -> list[int]:
    """At least so many tokens of an answer, which is given up then."""
    ids: list[int] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(engine.generate(prompt)) as runs:
        async for run in runs:
            ids += run.ids
            if len(ids) >= tokens:
                break
    return ids


def reference(model: LoadedModel, prompt: Prompt) -> tuple[list[int], FinishReason]:
    """What the library's own `generate` says greedily, with its own attention."""
    own = type(model.network)(model.network.config.__class__(**model.network.config.to_dict()))
    own.load_state_dict(model.network.state_dict())
    own.set_attn_implementation("eager")
    limit = min(prompt.sampling.max_output_tokens, model.context - len(prompt.ids))
    with torch.inference_mode():
        ids = (
            own.eval()
            .generate(
                torch.tensor([prompt.ids]),
                attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.long),
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=sorted(model.eos),
                pad_token_id=0,
            )[0, len(prompt.ids) :]
            .tolist()
        )
    return ([*ids[:-1]], "stop") if ids[-1] in model.eos else (ids, "length")
