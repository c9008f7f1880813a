from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from stages.llm.cache.kv import BLOCK
from stages.llm.engine import TorchEngine
from stages.llm.gpu.attention import Paged
from stages.llm.gpu.graphs import ROWS, Bucket, Call, Graphs, fitting, widths
from stages.llm.gpu.steps import Steps, steps_for
from stages.llm.gpu.tables import Tables
from stages.llm.models.model import LoadedModel
from stages.llm.models.steps import Place
from stages.llm.timing import measure
from tests.stages.llm.gpu.cases import CPU
from tests.stages.llm.gpu.stepping import Recorder, Text, right
from tests.stages.llm.running import answer, make_prompt, reference, some_ids

"""These tests stand for a GPU: its steps are computed by the CPU in plain torch, and "recorded" ones called again."""


@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize("recorded", [False, True])
def test_steps_say_what_the_library_says(kind: str, recorded: bool, load: Callable[[str], LoadedModel]) -> None:
    """Prompts in pieces, single tokens and company give the library's logits, launched or replayed."""
    model = load(kind)
    recorder = Recorder()
    text = Text(model, Steps(model.network, lambda: recorder))
    if recorded:
        text.steps.record(text.store, 512)
        text.steps.warm()
    for counts in ({0: 70, 1: 3}, {0: 1, 1: 1, 2: 60}, {1: 5, 0: 1}, {2: 7}):
        logits = text.step(counts)
        for number, row in zip(counts, logits, strict=True):
            expected = right(model, text.ids[number][: text.computed[number]])
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
    assert recorder.replayed == (4 if recorded else 0)


def test_launched_steps_send_all_at_once() -> None:
    """How the kernels cut the rows is learned from the first step; from then on it is in the one copy that is sent."""
    sent: list[bool] = []

    def network(*, ragged: Paged, logits_to_keep: Tensor, **_: object) -> SimpleNamespace:
        tiles, ids = (
            one.untyped_storage().data_ptr() for one in (ragged.tables.tiles(16), ragged.tables.mirror.part("ids"))
        )
        sent.append(tiles == ids)
        return SimpleNamespace(logits=torch.zeros(1, len(logits_to_keep), 5))

    steps = Steps(network)
    for start in range(3):
        steps([7], [0], [Place(0, 1, start, [0])], torch.zeros(1, 1, 2, 1, BLOCK, 4))

    assert sent == [False, True, True]


def test_a_larger_step_is_launched(model: LoadedModel) -> None:
    """What fits no graph is computed without; both ways see the same keys and values."""
    recorder = Recorder()
    text = Text(model, Steps(model.network, lambda: recorder))
    text.steps.record(text.store, 512)

    text.step({0: ROWS[-1] + 1})
    logits = text.step({0: 1})

    assert recorder.replayed == 1
    torch.testing.assert_close(logits[0], right(model, text.ids[0][: ROWS[-1] + 2]), rtol=1e-4, atol=1e-4)


def test_another_store_is_not_written(model: LoadedModel) -> None:
    """A graph holds for its store: a step of sequences in another one is launched, and finds its own there."""
    recorder = Recorder()
    steps = Steps(model.network, lambda: recorder)
    one = Text(model, steps)
    steps.record(one.store, 512)
    before = one.store.clone()
    other = Text(model, steps)

    logits = other.step({3: 5})

    assert recorder.replayed == 0
    assert torch.equal(one.store.nan_to_num(9.0), before.nan_to_num(9.0))
    torch.testing.assert_close(logits[0], right(model, other.ids[3][:5]), rtol=1e-4, atol=1e-4)


def test_recording_and_padding_write_no_keys(model: LoadedModel) -> None:
    """Recording changes nothing, and a replayed step of one token nothing but its own place."""
    recorder = Recorder()
    text = Text(model, Steps(model.network, lambda: recorder))
    text.store.fill_(9.0)
    text.steps.record(text.store, 512)
    text.steps.warm()
    assert recorder.captured == 2 * len(ROWS)
    assert bool((text.store == 9.0).all())

    text.step({0: 3})

    written = (text.store != 9.0).any(-1)
    assert int(written.sum()) == 3 * model.kv.layers * 2 * model.kv.heads


def test_logits_outlive_the_next_step(model: LoadedModel) -> None:
    """What a step gave is not overwritten by the next, which is replayed in the same memory."""
    text = Text(model, Steps(model.network, Recorder))
    text.steps.record(text.store, 512)

    first = text.step({0: 4})
    kept = first.clone()
    text.step({1: 4})

    assert torch.equal(first, kept)


def test_a_step_with_nothing_to_choose_gives_a_row(model: LoadedModel) -> None:
    """A piece of a prompt has no logits that anybody wants; there is a row of them, launched or replayed."""
    text = Text(model, Steps(model.network, Recorder))
    place = Place(0, 5, 0, [1])

    launched = text.steps(text.ids[0][:5], [], [place], text.store)
    text.steps.record(text.store, 512)
    replayed = text.steps(text.ids[0][:5], [], [place], text.store)

    assert launched.shape == replayed.shape == (1, model.tokens)


def test_model_that_cannot_be_recorded_goes_on() -> None:
    """It is tried once, and all steps are launched."""

    def refuse(_call: Call) -> Call:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = Graphs(_ones, torch.zeros(4, 1), context=100, capture=refuse)
    told: list[float] = []

    graphs.warm(told.append)

    assert graphs.broken
    assert told == [0.0]
    assert graphs([1], [0], [Place(0, 1, 0, [1])], torch.zeros(4, 1)) is None


def test_recorded_when_first_needed_and_then_no_more() -> None:
    """Without a warm-up a graph is recorded with the first step that needs it."""
    recorder, store = Recorder(), torch.zeros(4, 1)
    graphs = Graphs(_ones, store, context=100, capture=recorder)

    for ids in ([1], [1], [1, 2, 3]):
        logits = graphs(ids, [0], [Place(0, len(ids), 0, [1])], store)
        assert logits is not None
        assert logits.tolist() == [[float(ids[0])] * 5]

    assert graphs.recorded == {Bucket(1, 2), Bucket(4, 2)}
    assert (recorder.captured, recorder.replayed) == (2, 3)


def test_progress_of_the_warm_up() -> None:
    """It tells how much of it is done, and records the largest first."""
    graphs = Graphs(_ones, torch.zeros(4, 1), context=100 * BLOCK, capture=Recorder())
    told: list[float] = []

    graphs.warm(told.append)

    assert told == [number / 24 for number in range(24)]
    assert graphs.recorded == {Bucket(rows, width) for rows in ROWS for width in (4, 32, 100)}


@pytest.mark.parametrize(
    ("most", "expected"), [(0, [1]), (1, [1]), (4, [4]), (5, [4, 5]), (32, [4, 32]), (2048, [4, 32, 256, 2048])]
)
def test_widths(most: int, expected: list[int]) -> None:
    """They grow eightfold, and the last is as wide as a sequence can be."""
    assert widths(most) == expected


@pytest.mark.parametrize(
    ("rows", "width", "expected"),
    [(1, 1, (1, 4)), (3, 4, (4, 4)), (4, 5, (4, 9)), (128, 9, (128, 9)), (129, 1, None), (1, 10, None), (0, 0, None)],
)
def test_fitting(rows: int, width: int, expected: tuple[int, int] | None) -> None:
    """A step takes the smallest graph that it fits, and none where there is none."""
    assert fitting(rows, width, [4, 9]) == expected


def test_the_processor_has_its_own_way(model: LoadedModel) -> None:
    """On the CPU nothing of this is used; elsewhere it is, and only CUDA has graphs."""
    assert steps_for(model.network, CPU, graphs=True) is None
    assert not isinstance(model.steps, Steps)
    assert isinstance(steps_for(model.network, torch.device("mps"), graphs=True), Steps)


async def test_engine_answers_by_these_steps(model: LoadedModel) -> None:
    """Answers with company and a draft are those of `generate`; model and draft have graphs of their own."""
    recorders = [Recorder(), Recorder()]
    there, draft = (replace(model, steps=Steps(model.network, partial(_itself, one))) for one in recorders)
    prompts = [make_prompt(some_ids(length, length), session=str(length), max_output_tokens=12) for length in (3, 70)]

    async with TorchEngine(there, draft=draft, most=4, kv_bytes=1 << 21, prefix_bytes=0) as engine:
        answers = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

    assert [(ids, finish) for ids, finish, _ in answers] == [reference(model, prompt) for prompt in prompts]
    assert all(recorder.replayed > 8 for recorder in recorders)


def test_costs_are_those_of_recorded_steps(model: LoadedModel) -> None:
    """What is measured at start-up is replayed, as it will be when it counts; the largest steps are launched."""
    recorder = Recorder()

    costs = measure(replace(model, steps=Steps(model.network, lambda: recorder)), 0.0)

    assert costs.step(1, 4) > 0
    assert recorder.captured == 8, "of 1 to 128 rows"
    assert recorder.replayed >= 2 * 11


def _ones(tables: Tables, _store: Tensor) -> Tensor:
    """Logits that say the ids."""
    return tables.mirror.part("ids").float()[:, None].expand(-1, 5)


def _itself(recorder: Recorder) -> Recorder:
    return recorder
