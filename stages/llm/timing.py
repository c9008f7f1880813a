"""Time a model's steps, at start-up and on the machine on which it will answer."""

from __future__ import annotations

import time

from pipeline.messages import Prompt
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import blocks_for
from stages.llm.costs import LEAST_S, Costs
from stages.llm.models.forward import ROWS, Work, forward
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence

POINTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of the steps that are measured. The last two tell what each row beyond them costs."""

WIDE = 16
"""Sequences in the step that tells what a sequence costs beside its rows."""

PATIENCE_S, LIMIT_S = 0.005, 3.0
"""How long to measure a point, which is done twice at least, and after which time no further point is begun."""


def measure(model: LoadedModel, patience_s: float = PATIENCE_S) -> Costs:
    """Time a few steps of `model`, each size for `patience_s`, at most `LIMIT_S` altogether (and the two smallest)."""
    began = time.perf_counter()
    pool = BlockPool(max(WIDE, blocks_for(POINTS[-1])), model.kv)
    if model.steps is not None:
        model.steps.record(pool.store, model.context)
    wide = _time(model, WIDE, 1, patience_s, pool)
    points: list[tuple[int, float]] = []
    tile = ROWS if model.steps is None else 1
    for rows in (rows for rows in POINTS if rows % tile == 0):
        if rows > model.context or (len(points) > 1 and time.perf_counter() - began > LIMIT_S):
            break
        points.append((rows, _time(model, 1, rows, patience_s, pool)))
    sequence = max(0.0, wide - Costs(points).step(0, WIDE)) / (WIDE - 1)
    return Costs([(rows, max(LEAST_S, seconds - sequence)) for rows, seconds in points], sequence, tile=tile)


def prompt_token(model: LoadedModel, tokens: int) -> float:
    """Seconds that one more token takes in a prompt of so many, measured in a few steps, for somebody may wait."""
    tokens = min(tokens, model.context)
    pool = BlockPool(blocks_for(tokens), model.kv)
    return max(0.0, _time(model, 1, tokens, 0, pool) - _time(model, 1, 1, 0, pool)) / max(1, tokens - 1)


def _time(model: LoadedModel, sequences: int, tokens: int, patience_s: float, pool: BlockPool) -> float:
    prompt = Prompt("", "", tuple(number % model.tokens for number in range(tokens)))
    best, spent, rounds = float("inf"), 0.0, 0
    works = [Work(Sequence(n, prompt, model.vocabulary, context=10**9), tokens) for n in range(sequences)]
    for work in works:
        work.sequence.place(pool.table()[0])
        work.sequence.reserve(tokens)
    while rounds < 2 or spent < patience_s:
        began = time.perf_counter()
        forward(model, works)[0, 0].item()  # on a GPU it has only been begun before
        took = time.perf_counter() - began
        best, spent, rounds = min(best, took), spent + took, rounds + 1
    for work in works:
        pool.release(work.sequence.table)
    return best
