"""Logits do not depend on the company, bit for bit (on the CPU, in each precision)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.llm.models.forward import Work, forward
from stages.llm.models.model import DType, Forward, LoadedModel, load_model
from stages.llm.sequence import Sequence
from tests.stages import models
from tests.stages.conftest import DEMO
from tests.stages.llm.running import make_prompt, placed, some_ids

pytestmark = pytest.mark.slow  # all of them together: every kind of model, with weights

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


@pytest.fixture(scope="module")
def load_as(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, DType], LoadedModel]:
    """Load a tiny random model of some kind in some precision, once; "llama by torch" is not computed natively."""
    loaded: dict[tuple[str, DType], LoadedModel] = {}

    def get(kind: str, dtype: DType) -> LoadedModel:
        if (kind, dtype) not in loaded:
            name, _, whose = kind.partition(" by ")
            folder = models.save(tmp_path_factory.mktemp("model"), name)
            forward: Forward = "torch" if whose else "auto"
            loaded[kind, dtype] = load_model(folder, device="cpu", dtype=dtype, forward=forward)
        return loaded[kind, dtype]

    return get


def drafted(model: LoadedModel, length: int, guesses: int) -> Tensor:
    """The logits after the last ids of that prompt, which stand there as guesses."""
    (sequence,) = sequences(model, (length,))
    sequence.drafts = sequence.ids[-guesses:]
    del sequence.ids[-guesses:]
    whole = sequence.pending
    forward(model, [Work(sequence, whole - guesses - 1)])
    sequence.advance(whole - guesses - 1)
    return forward(model, [Work(sequence, guesses + 1)])[: guesses + 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["llama", "llama by torch", "mistral", "qwen2", "qwen3", "gpt2", "phi", "gemma2"])
def test_pieces_and_company_do_not_matter(kind: str, dtype: DType, load_as: Callable[..., LoadedModel]) -> None:
    """However the prompts are cut, and whatever is computed beside them, the logits are the same bits."""
    model = load_as(kind, dtype)
    expected = [alone(model, length) for length in LENGTHS]

    for seed in range(3 if kind == "llama" else 1):
        got = in_company(model, LENGTHS, random.Random(seed))
        assert [torch.equal(a, b) for a, b in zip(expected, got, strict=True)] == [True] * len(LENGTHS)


@pytest.mark.parametrize("guesses", [1, 3, 6])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_guesses_do_not_matter(guesses: int, dtype: DType, load_as: Callable[..., LoadedModel]) -> None:
    """Computed as guesses beside each other, ids give the logits that they give one by one."""
    model = load_as("llama", dtype)
    length = LENGTHS[-1]
    (whole,) = sequences(model, (length,))
    one_by_one = []
    forward(model, [Work(whole, length - guesses - 1)])
    whole.advance(length - guesses - 1)
    rest, whole.ids = whole.ids[-guesses:], whole.ids[:-guesses]
    for token in [*rest, None]:
        one_by_one.append(forward(model, [Work(whole, 1)])[0])
        whole.advance(1)
        whole.ids += [] if token is None else [token]

    assert torch.equal(drafted(model, length, guesses), torch.stack(one_by_one))


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Three threads for torch, so that a share of the work ends in the middle of a row."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(
    ("kind", "whose"), [("llama", "auto"), ("llama", "torch"), ("llama", "library"), ("gemma2", "auto")]
)
def test_threads_do_not_matter(kind: str, whose: Forward, tmp_path: Path) -> None:
    """Among several threads, where each one's share of a step ends does not depend on what else is computed."""
    folder = models.save(tmp_path, kind, intermediate_size=704)
    model = load_model(folder, device="cpu", forward=whose)
    lengths = (430, 100, 300)
    expected = [alone(model, length) for length in lengths]

    got = in_company(model, lengths, random.Random(1))

    assert [torch.equal(a, b) for a, b in zip(expected, got, strict=True)] == [True] * len(lengths)


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="the demo model is not built")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_demo_model_too(dtype: DType) -> None:
    """The same holds for the model we ship, in each precision."""
    model = load_model(DEMO, device="cpu", dtype=dtype)
    expected = [alone(model, length) for length in LENGTHS]

    got = in_company(model, LENGTHS, random.Random(0))

    assert [torch.equal(a, b) for a, b in zip(expected, got, strict=True)] == [True] * len(LENGTHS)
