"""Our engine as a contestant, with each way of guessing; measured is what a stage would be given, run by run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType

from apps.bench.llm_contest import Answer, Chunk, Ids, Serves, Speculated
from apps.bench.llm_report import AUTO, DRAFT, NGRAM, OFF
from pipeline.messages import Prompt, Sampling
from stages.llm.engine import TorchEngine
from stages.llm.guessing.speculation import Mode
from stages.llm.models.model import LoadedModel

MODES: Mapping[str, Mode] = MappingProxyType({OFF: "off", DRAFT: "draft", NGRAM: "ngram", AUTO: "auto"})
WITH_DRAFT = (DRAFT, AUTO)
QUEUE = 256
WAIT_S = 3600.0
KV_BYTES = 1 << 30


class Ours:
    """A `TorchEngine` on `model`, for `streams` at once, with nothing kept from one answer for another."""

    serves: Serves = "continuous batch"

    def __init__(self, name: str, model: LoadedModel, draft: LoadedModel, *, streams: int) -> None:
        self.name = name
        self._runner = asyncio.Runner()
        self._engine = TorchEngine(
            replace(model, eos=frozenset()),
            draft=replace(draft, eos=frozenset()) if name in WITH_DRAFT else None,
            speculation=MODES[name],
            most=streams,
            queue=QUEUE,
            max_wait_s=WAIT_S,
            kv_bytes=KV_BYTES,
            prefix_bytes=0,
        )
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
        prompt = Prompt(turn, turn, ids, Sampling(max_output_tokens=tokens))
        answer: Answer = []
        async with aclosing(self._engine.generate(prompt)) as runs:
            async for run in runs:
                if run.ids:
                    answer.append(Chunk(time.perf_counter() - began, run.ids))
        return answer

    def speculated(self) -> Speculated | None:
        """As the engine counts for its metrics."""
        counts = self._engine.state.speculation
        if counts is None:
            return None
        drafters = counts.drafters.values()
        guessed = sum(one.draft_tokens for one in drafters)
        return Speculated(guessed, sum(one.accepted_tokens for one in drafters), counts.steps)

    def close(self) -> None:
        """End its thread."""
        self._runner.run(self._engine.__aexit__(None, None, None))
        self._runner.close()


def our_contestants(model: LoadedModel, draft: LoadedModel, *, streams: int) -> list[Ours]:
    """Our engine with each way of guessing."""
    return [Ours(name, model, draft, streams=streams) for name in MODES]
