"""llama.cpp as a contestant, on a GGUF file of the same weights. Needs the `llama-cpp-python` package.

`LlamaCpp` drives the library's own batches of many sequences, as its server does: a step takes one token of each answer
in the making, and parts of prompts fill it up. The speculative ones are the package's own, which know one stream.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
from llama_cpp.llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding
from numpy.typing import NDArray

from apps.bench.client import Unanswered
from apps.bench.llm_contest import Answer, Chunk, Contestant, Ids, Serves, Speculated, tokens_of
from apps.bench.llm_report import LLAMA, LLAMA_DRAFT, LLAMA_LOOKUP

BATCH = 512
LOOKUP_TOKENS = 2
"""Tokens that prompt lookup proposes: what the package recommends without a GPU, and of 2, 5 and 10 the fastest."""
DRAFT_TOKENS = 4
"""Tokens that its draft model proposes, which the package leaves to us: from there on as fast as any up to 8."""


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # see pyproject.toml
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """It tells of every layer that it loads."""


class _Stream(NamedTuple):
    """An answer in the making in the sequence of that number: `ids` are certain, the first `computed` are stored."""

    number: int
    ids: list[int]
    answer: Answer

    @property
    def output(self) -> int:
        return len(self.answer)


class LlamaCpp:
    """Many streams in one context of llama.cpp, each with `context` tokens at most."""

    name = LLAMA
    serves: Serves = "continuous batch"

    def __init__(self, path: Path, *, streams: int, context: int, threads: int) -> None:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = streams * context
        options.n_seq_max = streams
        options.n_batch = options.n_ubatch = BATCH
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = False
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._sampler = llama_cpp.llama_sampler_init_greedy()

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """See `Contestant`."""
        began = time.perf_counter()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        streams = [_Stream(number, list(ids), []) for number, ids in enumerate(prompts)]
        computed = [0] * len(streams)
        while running := [stream for stream in streams if stream.output < tokens]:
            chosen = self._step(running, computed)
            at = time.perf_counter() - began
            for stream, token in chosen:
                stream.ids.append(token)
                stream.answer.append(Chunk(at, (token,)))
        return [stream.answer for stream in streams]

    def _step(self, running: Sequence[_Stream], computed: list[int]) -> list[tuple[_Stream, int]]:
        """Compute a batch; who has a next token, and which."""
        batch, rows = self._batch, 0
        ends: list[tuple[_Stream, int]] = []
        for stream in sorted(running, key=lambda one: not one.answer):  # those that stream, then prompts
            start = computed[stream.number]
            count = min(len(stream.ids) - start, BATCH - rows)
            for position in range(start, start + count):
                batch.token[rows] = stream.ids[position]
                batch.pos[rows] = position
                batch.n_seq_id[rows] = 1
                batch.seq_id[rows][0] = stream.number
                batch.logits[rows] = position == len(stream.ids) - 1
                rows += 1
            computed[stream.number] += count
            if count and computed[stream.number] == len(stream.ids):
                ends.append((stream, rows - 1))
        batch.n_tokens = rows
        if status := llama_cpp.llama_decode(self._context, batch):
            raise Unanswered(f"llama_decode says {status}")
        return [(stream, llama_cpp.llama_sampler_sample(self._sampler, self._context, row)) for stream, row in ends]

    def speculated(self) -> None:
        """It does not guess."""

    def close(self) -> None:
        """Free what C has allocated."""
        llama_cpp.llama_sampler_free(self._sampler)
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


class _Counting(LlamaDraftModel):  # type: ignore[misc]  # likewise
    """Passes the question on to `propose`, and counts."""

    def __init__(self, propose: Callable[[NDArray[np.intc]], NDArray[np.intc]]) -> None:
        self.propose = propose
        self.calls = self.guessed = 0

    def __call__(self, input_ids: NDArray[np.intc], /, **_others: Any) -> NDArray[np.intc]:
        self.calls += 1
        found = self.propose(input_ids)
        self.guessed += len(found)
        return found


class LlamaCppSpeculative:
    """llama-cpp-python's own speculation: one stream, answers one after another."""

    serves: Serves = "one after another"

    def __init__(
        self, name: str, path: Path, propose: Callable[[NDArray[np.intc]], NDArray[np.intc]], **options: Any
    ) -> None:
        self.name = name
        self._draft = _Counting(propose)
        # without `logits_all` the package has no room for the logits of a prompt longer than a batch
        self._llama = _llama(path, draft_model=self._draft, logits_all=True, **options)
        self._right = 0

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """See `Contestant`."""
        began = time.perf_counter()
        return [self._one(ids, tokens, began) for ids in prompts]

    def _one(self, ids: Ids, tokens: int, began: float) -> Answer:
        answer: Answer = []
        calls = -1
        left = tokens
        for token in self._llama.generate(list(ids), temp=0.0):
            at = time.perf_counter() - began
            if calls == self._draft.calls:  # of the same batch as the one before
                answer[-1] = Chunk(at, (*answer[-1].ids, token))
            else:
                answer.append(Chunk(at, (token,)))
            calls = self._draft.calls
            left -= 1
            if not left:
                break
        self._right += len(tokens_of(answer)) - len(answer)
        return answer

    def speculated(self) -> Speculated:
        """Since its start."""
        return Speculated(self._draft.guessed, self._right)

    def close(self) -> None:
        """Free what C has allocated."""
        self._llama.close()
        if isinstance(self._draft.propose, _Drafting):
            self._draft.propose.llama.close()


def _llama(path: Path, *, context: int, threads: int, **others: Any) -> Any:
    return llama_cpp.Llama(
        str(path),
        n_ctx=context,
        n_batch=BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn=True,
        verbose=False,
        **others,
    )


class _Drafting:
    """What a smaller model says next; it keeps what it has computed of the same beginning."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.llama = _llama(path, **options)

    def __call__(self, input_ids: NDArray[np.intc]) -> NDArray[np.intc]:
        said = self.llama.generate(input_ids.tolist(), temp=0.0)
        return np.array([next(said) for _ in range(DRAFT_TOKENS)], dtype=np.intc)


def llama_contestants(target: Path, draft: Path, *, streams: int, context: int, threads: int) -> list[Contestant]:
    """llama.cpp on the GGUF files `target` and `draft`."""
    options = {"context": context, "threads": threads}
    lookup = LlamaPromptLookupDecoding(num_pred_tokens=LOOKUP_TOKENS)
    return [
        LlamaCpp(target, streams=streams, context=context, threads=threads),
        LlamaCppSpeculative(LLAMA_DRAFT, target, _Drafting(draft, **options), **options),
        LlamaCppSpeculative(LLAMA_LOOKUP, target, lookup, **options),
    ]
