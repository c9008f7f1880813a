"""An engine that answers at once with made-up tokens: for tests, and to measure everything around an engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence

from pipeline.messages import Prompt
from stages.llm.stage import Run


class InstantEngine:
    """Answer with `tokens` tokens, or as many as the prompt allows.

    The ids are drawn from `vocabulary` by the prompt's seed and the token's number, so that any worker goes on as
    another began. `script` replaces them, where the text matters.

    Args:
        tokens: The length of an answer, unless `script` is given.
        vocabulary: The ids to draw from; keep control tokens out.
        script: The ids of every answer.
        first_s: Seconds before the first token.
        each_s: Seconds before each further one.
        run: Tokens in a run.
    """

    def __init__(
        self,
        tokens: int = 32,
        *,
        vocabulary: range = range(100, 1000),
        script: Sequence[int] | None = None,
        first_s: float = 0.0,
        each_s: float = 0.0,
        run: int = 1,
    ) -> None:
        self._length = tokens if script is None else len(script)
        self._vocabulary = vocabulary
        self._script = script
        self._first_s, self._each_s = first_s, each_s
        self._run = run
        self.open = 0
        """Answers in the making."""

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """Continue `prompt` after `prompt.emitted`."""
        limit = prompt.sampling.max_output_tokens
        end = min(self._length, limit)
        self.open += 1
        try:
            for at in range(len(prompt.emitted), end, self._run):
                await asyncio.sleep(self._each_s if at else self._first_s)
                yield Run(tuple(self._token(prompt, n) for n in range(at, min(at + self._run, end))))
            yield Run((), "stop" if self._length < limit else "length")
        finally:
            self.open -= 1

    def _token(self, prompt: Prompt, number: int) -> int:
        if self._script is not None:
            return self._script[number]
        return random.Random(f"{prompt.sampling.seed}:{number}").choice(self._vocabulary)
