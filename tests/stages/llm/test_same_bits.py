"""Logits do not depend on the company, bit for bit (float32 on the CPU)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stages.llm.forward import Work, forward
from stages.llm.model import LoadedModel, load_model
from stages.llm.sequence import Sequence
from tests.stages.conftest import DEMO
from tests.stages.llm.running import make_prompt, placed, some_ids

LENGTHS = (200, 3, 64, 65, 129, 31)


def sequences(model: LoadedModel, lengths: tuple[int, ...]) -> list[Sequence]:
    """Sequences with prompts of these lengths, each its own."""
    prompts = [make_prompt(some_ids(length, length), max_output_tokens=8) for length in lengths]
    return placed(model, prompts)


def alone(model: LoadedModel, length: int) -> Tensor:
    """The last logits of the prompt of that length, computed at once and alone."""
    (sequence,) = sequences(model, (length,))
    return forward(model, [Work(sequence, length)])[0]


def in_company(model: LoadedModel, lengths: tuple[int, ...], drawn: random.Random) -> list[Tensor]:
    """The last logits of all prompts, computed in random pieces beside each other."""
    running = sequences(model, lengths)
    last: dict[int, Tensor] = {}
    while running:
        works = [
            Work(s, min(s.pending, drawn.choice((1, 2, 3, 5, 17, 64, 90)))) for s in running if drawn.random() < 0.7
        ]
        if not works:
            continue
        logits = forward(model, works)
        rows = itertools.count()
        for work in works:
            if work.last:
                last[work.sequence.number] = logits[next(rows)]
                running.remove(work.sequence)
            work.sequence.advance(work.count)
    return [last[number] for number in range(len(lengths))]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_pieces_and_company_do_not_matter(kind: str, load: Callable[[str], LoadedModel]) -> None:
    """However the prompts are cut, and whatever is computed beside them, the logits are the same bits."""
    model = load(kind)
    expected = [alone(model, length) for length in LENGTHS]

    for seed in range(3):
        got = in_company(model, LENGTHS, random.Random(seed))
        assert [torch.equal(a, b) for a, b in zip(expected, got, strict=True)] == [True] * len(LENGTHS)


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="the demo model is not built")
def test_demo_model_too() -> None:
    """The same holds for the model we ship."""
    model = load_model(DEMO, device="cpu")
    expected = [alone(model, length) for length in LENGTHS]

    got = in_company(model, LENGTHS, random.Random(0))

    assert [torch.equal(a, b) for a, b in zip(expected, got, strict=True)] == [True] * len(LENGTHS)
