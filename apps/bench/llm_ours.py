"""Our engine as a contestant, with each way of guessing; measured is what a stage would be given, run by run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Literal, get_args

import msgspec

from apps.bench.llm_contest import Answer, Chunk, Ids, Serves, Speculated
from apps.bench.llm_report import DRAFT, OFF
from pipeline.messages import Prompt, Sampling
from stages.llm.engine import TorchEngine
from stages.llm.model import LoadedModel

Guessing = Literal["penstock", "penstock, draft"]
KINDS: tuple[Guessing, ...] = get_args(Guessing)
QUEUE = 256
WAIT_S = 3600.0
KV_BYTES = 1 << 30


class Ours:
    """A `TorchEngine` on `model`, for `streams` at once, with nothing kept from one answer for another."""

    serves: Serves = "continuous batch"

    def __init__(self, guessing: Guessing, model: LoadedModel, draft: LoadedModel | None, *, streams: int) -> None:
        self.name = guessing
        self._runner = asyncio.Runner()
        self._engine = TorchEngine(
            replace(model, eos=frozenset()),
            draft=replace(draft, eos=frozenset()) if draft and guessing == DRAFT else None,
            most=streams,
            queue=QUEUE,
            max_wait_s=WAIT_S,
            kv_bytes=KV_BYTES,
            prefix_bytes=0,
        )
        self._sampling = Sampling(speculation=0 if guessing == OFF else None)
        self._turns = 0
        self._runner.run(self._engine.__aenter__())

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """See `Contestant`."""
        return self._runner.run(self._answer(prompts, tokens))

    async def _answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._one(ids, tokens, began)) for ids in prompts]
        return [task.result() for task in asked]

    async def _one(self, ids: Ids, tokens: int, began: float) -> Answer:
        self._turns += 1
        turn = f"turn-{self._turns}"
        prompt = Prompt(turn, turn, ids, msgspec.structs.replace(self._sampling, max_output_tokens=tokens))
        answer: Answer = []
        async with aclosing(self._engine.generate(prompt)) as runs:
            async for run in runs:
                if run.ids:
                    answer.append(Chunk(time.perf_counter() - began, run.ids))
        return answer

    def speculated(self) -> Speculated | None:
        """Not told by the engine."""
        return None

    def close(self) -> None:
        """End its thread."""
        self._runner.run(self._engine.__aexit__(None, None, None))
        self._runner.close()


def our_contestants(model: LoadedModel, draft: LoadedModel | None, *, streams: int) -> list[Ours]:
    """Our engine with each way of guessing that these models allow."""
    kinds = KINDS if draft else [kind for kind in KINDS if kind != DRAFT]
    return [Ours(kind, model, draft, streams=streams) for kind in kinds]
