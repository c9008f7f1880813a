"""Penalties and biases: what stands in the answer already, and in the drafts, shifts the logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.messages import Sampling
from stages.llm.choosing import penalties
from stages.llm.choosing.penalties import Shift, Table, shift_of, shifted
from stages.llm.choosing.sampling import Choice, sample
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence
from tests.stages.llm.running import make_prompt

LOGITS = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)) * 3
PROMPT = [1, 2, 2, 3]


def plainly(logits: torch.Tensor, ask: Sampling, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The same token by token, as it is defined."""
    made = logits.clone()
    for token in range(len(logits)):
        if token in prompt or token in answer:
            factor = ask.repetition_penalty
            made[token] *= 1 / factor if made[token] > 0 else factor
        made[token] -= ask.frequency_penalty * answer.count(token) + ask.presence_penalty * (token in answer)
        made[token] += dict(ask.logit_bias).get(token, 0.0)
    return made


def shift(answer: list[int], **ask: Any) -> Shift:
    """The shift of an answer that stands at `answer`."""
    made = shift_of(Sampling(**ask), [*PROMPT, *answer], len(PROMPT))
    assert made is not None
    return made


@pytest.mark.parametrize(
    "ask",
    [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.5},
        {"presence_penalty": 1.5},
        {"frequency_penalty": -0.75},
        {"logit_bias": ((3, -100.0), (9, 4.0))},
        {"repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.25, "logit_bias": ((2, 1.0),)},
    ],
    ids=["repeated", "repeated gladly", "present", "frequent", "biased", "all"],
)
def test_logits_are_shifted_as_defined(ask: dict[str, Any]) -> None:
    """Each of them, and all together, with and without drafts, the prompt counted where it counts."""
    answer = [2, 7, 7, 9]
    made = shifted(LOGITS, [shift(answer, **ask)] * 3, [(), (7,), (5, 5)])

    for row, drafts in enumerate([[], [7], [5, 5]]):
        assert torch.allclose(made[row], plainly(LOGITS[row], Sampling(**ask), PROMPT, answer + drafts), atol=1e-6)


def test_counts_grow_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step counts what is new since the one before and nothing else; what was drafted leaves no trace."""
    looked: list[int] = []
    follow = Table.follow

    def watched(table: Table, ids: list[int], prompt: int) -> None:
        looked.append(len(ids) - table._counted)
        follow(table, ids, prompt)

    monkeypatch.setattr(penalties.Table, "follow", watched)
    ids = [*PROMPT]
    grown = Shift(Sampling(frequency_penalty=1.0), ids, len(PROMPT))
    for token in (5, 5, 6):
        shifted(LOGITS[:1], [grown], [(8, 8)])
        ids.append(token)
    made = shifted(LOGITS[:1], [grown], [()])

    assert torch.equal(made, shifted(LOGITS[:1], [shift([5, 5, 6], frequency_penalty=1.0)], [()]))
    assert looked == [4, 1, 1, 1, 7]


def test_rows_with_and_without_stand_side_by_side() -> None:
    """A row's token is what it is alone, be its neighbours penalised, drawn or plain."""
    first = shift([2, 7], repetition_penalty=1.3)
    second = shift([4], presence_penalty=1.0, logit_bias=((5, 2.0),))
    choices = [Choice(1, 6, 0.0, shift=first, drafts=(3,)), Choice(2, 5, 0.0), Choice(3, 5, 1.0, shift=second)]

    together = sample(LOGITS, choices)

    assert together == [sample(LOGITS[row : row + 1], [choice])[0] for row, choice in enumerate(choices)]


def test_what_is_drafted_before_counts_for_what_comes_after() -> None:
    """In a step, a token that a draft before it says already is penalised as if it were certain."""
    best = int(LOGITS[0].argmax())
    penalised = shift([], frequency_penalty=2.0)
    chosen = sample(LOGITS[:1].expand(2, -1), [Choice(1, 4, 0.0, shift=penalised, drafts=n * (best,)) for n in (0, 9)])

    assert chosen[0] == best
    assert chosen[1] != best


def test_each_position_of_a_step_knows_the_drafts_before_it(model: LoadedModel) -> None:
    """What is chosen after certain tokens and drafts takes just these for granted; who needs none is told none."""
    for presence, drafts in ((1.0, [(), (8,), (8, 9)]), (0.0, [(), (), ()])):
        sequence = Sequence(0, make_prompt([5, 6], presence_penalty=presence), model.vocabulary, context=99)
        sequence.drafts = [8, 9]

        assert [choice.drafts for choice in sequence.choices()] == drafts


def test_a_model_with_fewer_rows_has_counts_of_its_own() -> None:
    """A draft model may lack rows for the last tokens; what it has is shifted alike."""
    answer = shift([2, 39], frequency_penalty=1.0, logit_bias=((39, 5.0),))

    whole = shifted(LOGITS[:1], [answer], [(38,)])
    part = shifted(LOGITS[:1, :30], [answer], [(38,)])

    assert torch.equal(part, whole[:, :30])


def test_nothing_asked_is_nothing_done() -> None:
    """Neutral values need no counts."""
    assert shift_of(Sampling(repetition_penalty=1.0, presence_penalty=0.0, top_k=5), [1], 1) is None
