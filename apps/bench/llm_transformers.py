"""What transformers itself offers, as contestants: `generate`, its two assisted modes, and its continuous batching.

Each has the library's defaults, unless said here; greedy, and without an end-of-sequence token, so that every answer
has as many tokens as were asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation import candidate_generator
from transformers.generation.streamers import BaseStreamer

from apps.bench.client import Unanswered
from apps.bench.llm_contest import Answer, Chunk, Contestant, Ids, Serves, Speculated
from apps.bench.llm_report import ASSISTED, CONTINUOUS, GENERATE, LOOKUP

PAD = 0
LOOKUP_TOKENS = 5
"""Tokens that prompt lookup proposes: of 3, 5 and 10 the fastest on the demo's prompts."""
ASSISTANT_TOKENS = 8
"""Tokens that the draft proposes at most, fewer where it is not confident: on the demo's prompts faster than the
library's default, 20, and than its other schedule, and the first token comes sooner."""
PAGE, BATCH = 64, 512
WAIT_S = 600.0

GENERATORS = (candidate_generator.AssistedCandidateGenerator, candidate_generator.PromptLookupCandidateGenerator)


def _assistant(folder: str, dtype: torch.dtype) -> Any:
    loaded = network(folder, dtype)
    loaded.generation_config.num_assistant_tokens = ASSISTANT_TOKENS
    return loaded


def quieten() -> None:
    """The libraries warn of what is meant so, and draw bars of their own."""
    from transformers.utils import logging as library

    library.set_verbosity_error()
    library.disable_progress_bar()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)


def network(folder: str, dtype: torch.dtype) -> Any:
    """The causal LM in `folder`, as transformers runs it."""
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    loaded.generation_config = GenerationConfig(pad_token_id=PAD)
    return loaded.eval()


class _Clock(BaseStreamer):
    """Notes when tokens come; the first call of `put` brings the prompt."""

    def __init__(self, count: int, began: float) -> None:
        self.answers: list[Answer] = [[] for _ in range(count)]
        self._began = began
        self._prompted = False

    def put(self, value: Tensor) -> None:
        """`value`: [streams] tokens of a step, or [1, tokens] that were accepted together."""
        if not self._prompted:
            self._prompted = True
            return
        at = time.perf_counter() - self._began
        for answer, ids in zip(self.answers, value.view(len(self.answers), -1).tolist(), strict=True):
            answer.append(Chunk(at, tuple(ids)))

    def end(self) -> None:
        """Nothing is left to note."""


class Generate:
    """`generate` over a batch, shorter prompts padded on the left; `assist` goes to it and lets it guess."""

    def __init__(self, name: str, network: Any, **assist: Any) -> None:
        self.name = name
        self._network = network
        self._assist = assist
        self._guessed = self._right = 0

    @property
    def serves(self) -> Serves:
        """Its assisted modes take one prompt at a time."""
        return "one after another" if self._assist else "padded batch"

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """See `Contestant`."""
        began = time.perf_counter()
        if not self._assist:
            return self._generate(prompts, tokens, began)
        with self._counted():
            return [self._generate([ids], tokens, began)[0] for ids in prompts]

    def _generate(self, prompts: Sequence[Ids], tokens: int, began: float) -> list[Answer]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (longest - len(one)) + list(one) for one in prompts])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
        clock = _Clock(len(prompts), began)
        with torch.inference_mode():
            self._network.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                do_sample=False,
                streamer=clock,
                **self._assist,
            )
        return clock.answers

    def speculated(self) -> Speculated | None:
        """Counted where the library adapts to it, as it tells nobody."""
        return Speculated(self._guessed, self._right) if self._assist else None

    def close(self) -> None:
        """The network goes with the last who knows it."""
        self._network = None

    @contextmanager
    def _counted(self) -> Generator[None]:
        with (
            patch.object(GENERATORS[0], "update_candidate_strategy", self._counting(GENERATORS[0])),
            patch.object(GENERATORS[1], "update_candidate_strategy", self._counting(GENERATORS[1])),
        ):
            yield

    def _counting(self, generator: type[Any]) -> Any:
        original = generator.update_candidate_strategy

        def update(this: Any, input_ids: Tensor, scores: Tensor, num_matches: int) -> None:
            self._guessed += scores.shape[1] - 1
            self._right += int(num_matches)
            original(this, input_ids, scores, num_matches)

        return update


class ContinuousBatching:
    """transformers' continuous batching, its manager running all the while; times are those it records itself.

    Without streaming, for that copies all tokens so far with each: it is spared what it does badly.
    """

    name = CONTINUOUS
    serves: Serves = "continuous batch"

    def __init__(self, network: Any, *, streams: int, context: int) -> None:
        blocks = streams * -(-context // PAGE) + 1
        self._manager = network.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, pad_token_id=PAD, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE, num_blocks=blocks, max_batch_tokens=BATCH, max_requests_per_batch=streams
            ),
        )
        self._manager.start()

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """See `Contestant`."""
        began = time.perf_counter()
        names = self._manager.add_requests(
            [list(ids) for ids in prompts], max_new_tokens=tokens, record_timestamps=True
        )
        done: dict[str, Any] = {}
        while len(done) < len(names):
            result = self._manager.get_result(timeout=1)
            if result is None and (time.perf_counter() - began > WAIT_S or not self._manager.is_running()):
                raise Unanswered(f"{self.name} has stopped")
            if result is not None and result.is_finished():
                if result.error:
                    raise Unanswered(f"{self.name}: {result.error}")
                done[result.request_id] = result
        return [_answer(done[name], began) for name in names]

    def speculated(self) -> None:
        """It does not guess."""

    def close(self) -> None:
        """Stop its thread."""
        self._manager.stop(block=True)


def _answer(result: Any, began: float) -> Answer:
    times = result.timestamps
    return [Chunk(at - began, (token,)) for at, token in zip(times, result.generated_tokens, strict=True)]


def transformers_contestants(target: str, draft: str, dtype: str, *, streams: int, context: int) -> list[Contestant]:
    """All that transformers offers, on the model in the folder `target`; for int8 it has bfloat16 to offer."""
    quieten()
    precision = torch.float32 if dtype == "float32" else torch.bfloat16
    plain = network(target, precision)
    paged = network(target, precision)  # its attention is set for the whole network
    return [
        Generate(GENERATE, plain),
        Generate(ASSISTED, plain, assistant_model=_assistant(draft, precision)),
        Generate(LOOKUP, plain, prompt_lookup_num_tokens=LOOKUP_TOKENS),
        ContinuousBatching(paged, streams=streams, context=context),
    ]
