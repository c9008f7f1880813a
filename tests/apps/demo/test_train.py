"""The training: what is learnt from, how the rate falls, and that a run can be resumed."""

import random
from pathlib import Path

import pytest
import torch

from apps.demo import tokenizer
from apps.demo.batches import TOKENS, Recipe, pool
from apps.demo.model import Llama, Shape
from apps.demo.muon import orthogonal
from apps.demo.tokenizer import ASSISTANT, END, PAD, Encoder
from apps.demo.train import FLAT, Ledger, Plan, Trainer, cross_entropy, rate

TINY = Shape(width=16, layers=1, heads=2, kv_heads=1, hidden=32, head=8)
EASY = Recipe(noise=0.5, spell=0.1, copying=0.0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """An encoder with a few words only."""
    return Encoder(tokenizer.vocabulary([" the shop is open"], frozenset()))


def test_only_what_the_assistant_says_is_learnt(encoder: Encoder) -> None:
    """Each reply is marked from its first token to its end, and nothing else is."""
    ids, spoken = encoder.chat(
        [{"role": "user", "content": "is the shop open"}, {"role": "assistant", "content": "the shop is open"}]
    )
    start = ids.index(ASSISTANT) + 1

    assert spoken == [at >= start for at in range(len(ids))]
    assert ids[-1] == END


def test_batches_are_padded_and_bounded(encoder: Encoder) -> None:
    """No padding is learnt from, and no batch of several rows is over the limit."""
    for batch in pool(random.Random(1), encoder, EASY)[:20]:
        assert not batch.spoken[batch.ids == PAD].any()
        assert len(batch.ids) == 1 or batch.ids.numel() <= TOKENS


def test_unwanted_words_are_spelled(encoder: Encoder) -> None:
    """A word of the vocabulary is one token, any other is its letters."""
    assert len(encoder.encode(" shop")) == 1
    assert len(encoder.encode(" Olena")) == 6


def test_muon_makes_updates_orthogonal() -> None:
    """All singular values come near one, for wide and for tall matrices."""
    torch.manual_seed(0)
    for shape in ((3, 16, 48), (3, 48, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
        assert 0.5 < values.min() < values.max() < 1.5


@pytest.mark.parametrize("flat", FLAT.values())
def test_the_rate_rises_and_falls(flat: float) -> None:
    """It begins small, and ends at nothing."""
    assert rate(0.0, 0, flat) < 0.1 < rate(0.1, 1000, flat)
    assert rate(1.0, 9999, flat) == 0


def test_a_resumed_run_may_fall_from_a_rate_of_its_own() -> None:
    """It warms up again, then falls in a line from the share that was asked for to nothing."""
    plan, resumed = Plan(200.0, 0.4, again=0.5), (100.0, 7000)
    rates = [plan.rate(Ledger(seconds, steps), resumed) for seconds, steps in ((100, 7000), (150, 7500), (200, 8000))]

    assert 0 < rates[0] < 0.05
    assert rates[1:] == [0.25, 0.0]


def test_a_resumed_run_goes_on_as_if_never_stopped(encoder: Encoder, tmp_path: Path) -> None:
    """Weights, optimisers, ledger and the dropout's chance come back from the checkpoint."""
    batches = pool(random.Random(2), encoder, EASY)[:3]
    torch.manual_seed(0)
    first, second = (Trainer(Llama(TINY), torch.device("cpu")) for _ in range(2))
    first.step(batches[0], cross_entropy, 1.0)
    first.store(tmp_path / "state.pt")
    loss = first.step(batches[1], cross_entropy, 1.0)
    second.restore(tmp_path / "state.pt")

    assert second.step(batches[1], cross_entropy, 1.0).item() == loss.item()
    assert first.ledger == second.ledger
    torch.testing.assert_close(first.model.state_dict(), second.model.state_dict())
