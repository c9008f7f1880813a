"""Logits do not depend on where keys and values lie, who else reads them, or how many are computed in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import BLOCK
from stages.llm.models import layout
from stages.llm.models.forward import Work, forward
from stages.llm.models.model import LoadedModel
from stages.llm.models.steps import Place
from stages.llm.sequence import Sequence as Answer
from tests.stages.llm.running import make_prompt, placed, some_ids

KINDS = ["llama", "mistral", "qwen2", "gpt2"]


def computed_in(
    pool: BlockPool, model: LoadedModel, ids: Sequence[int], pieces: int = 50
) -> tuple[Answer, int, Tensor]:
    """A sequence of `ids` computed in `pool`, how many of them it found there, and the logits after the last."""
    sequence = Answer(0, make_prompt(ids), model.vocabulary, context=model.context)
    table, known = pool.table("t", sequence.ids)
    sequence.place(table, known)
    assert sequence.reserve(len(ids))
    logits = torch.empty(0)
    while sequence.computed < len(ids):
        count = min(pieces, sequence.pending)
        logits = forward(model, [Work(sequence, count)])[0]
        sequence.advance(count)
        pool.confirm(table, sequence.ids, sequence.computed)
    return sequence, known, logits


@pytest.mark.parametrize("kind", KINDS)
def test_found_is_as_good_as_computed(kind: str, load: Callable[[str], LoadedModel]) -> None:
    """After whole blocks of another, after a part of one, after a wait: the logits are those of who computes all."""
    model = load(kind)
    ids = some_ids(3 * BLOCK + 20, 1)
    texts = [[*ids, 9], [*ids[: 2 * BLOCK + 7], *some_ids(40, 2)], [*ids, 9, 8]]
    expected = [computed_in(BlockPool(9, model.kv), model, text)[2] for text in texts]
    pool = BlockPool(20, model.kv)
    first, _, _ = computed_in(pool, model, ids)

    live, shared, one = computed_in(pool, model, texts[0])
    _, copied, two = computed_in(pool, model, texts[1])
    pool.release(live.table, live.ids, "t")
    pool.release(first.table, ids, "t")
    _, all_but_one, three = computed_in(pool, model, texts[2])

    assert (shared, copied, all_but_one) == (3 * BLOCK, 2 * BLOCK + 7, len(ids) + 1)
    assert [torch.equal(a, b) for a, b in zip(expected, (one, two, three), strict=True)] == [True] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gathered", [1, 1 << 14, 1 << 30])
def test_many_in_one_call_are_as_each_alone(
    kind: str, gathered: int, load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams with and without guesses, over block boundaries too, in calls of any size: each gets its own bits."""
    model = load(kind)
    lengths = [50, 61, 62, 63, 64, 65, 100, 126, 127, 128, 129, 130]
    prompts = [make_prompt(some_ids(length, length)) for length in lengths]
    guesses = [n % 5 for n in range(len(lengths))]

    def begun() -> list[Work[Answer]]:
        works = []
        for sequence, count in zip(placed(model, prompts), guesses, strict=True):
            forward(model, [Work(sequence, len(sequence.ids) - 1)])
            sequence.advance(len(sequence.ids) - 1)
            sequence.drafts = some_ids(count, count)
            works.append(Work(sequence, sequence.pending))
        return works

    alone = torch.cat([forward(model, [work])[: work.count] for work in begun()])
    monkeypatch.setattr(layout, "GATHERED_BYTES", gathered)
    together = forward(model, begun())[: len(alone)]

    assert torch.equal(alone, together)


def test_streams_are_computed_together(model: LoadedModel) -> None:
    """As many streams as see the same number of blocks take one call a layer, not one each."""
    works = [Work(sequence, 1) for sequence in placed(model, [make_prompt(some_ids(9, n)) for n in range(16)])]
    spans = [Place(row, 1, 0, work.sequence.table.blocks) for row, work in enumerate(works)]
    plan = layout.Ragged(spans, 16, works[0].sequence.store).layout(4, 2)

    assert [[call.groups for call in group.calls] for group in plan.gathered] == [[16]]
