"""The training itself, a few steps of it."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from apps.demo.speech.batches import Corpus, Maker
from apps.demo.speech.model import Shape, Whisper
from apps.demo.speech.synthesis import write
from apps.demo.speech.train import Trainer, look_loss, rate, run

SHAPE = Shape(width=32, heads=2, inner=64, encoder=2, decoder=1)


def trainer() -> Trainer:
    """A small model's."""
    torch.manual_seed(0)
    return Trainer(Whisper(SHAPE))


@pytest.mark.slow
def test_it_learns_and_goes_on(tmp_path: Path) -> None:
    """All four losses fall on one batch; what was stored goes on as if nothing had happened."""
    write(tmp_path / "corpus" / "part0", seed=1, count=30)
    batch = next(iter(Maker(Corpus(tmp_path / "corpus"), seed=1, songs=2)))
    mine = trainer()

    losses = [torch.stack(mine.step(batch, 1.0)) for _ in range(12)]
    mine.store(tmp_path / "asr.pt")
    other = trainer()
    other.restore(tmp_path / "asr.pt")
    torch.manual_seed(1)
    expected = mine.step(batch, 0.5)
    torch.manual_seed(1)

    assert (losses[-1][:3] < losses[0][:3]).all()
    assert other.ledger.steps == 12
    torch.testing.assert_close(other.step(batch, 0.5), expected)


@pytest.mark.slow
def test_the_time_is_kept(tmp_path: Path) -> None:
    """A run ends when its seconds are used up, and leaves a checkpoint that says so."""
    write(tmp_path / "corpus" / "part0", seed=1, count=20)
    mine = trainer()

    run(mine, Maker(Corpus(tmp_path / "corpus"), seed=1, songs=2), 1.0, tmp_path / "asr.pt", Console(quiet=True))

    other = trainer()
    other.restore(tmp_path / "asr.pt")
    assert 1.0 <= other.ledger.seconds < 10
    assert other.ledger.steps == mine.ledger.steps > 0


def test_rate() -> None:
    """Up by steps, flat, and down to nothing at the end of the time."""
    assert rate(0.1, 14) == pytest.approx(0.1)
    assert rate(0.3, 1000) == 1.0
    assert rate(0.7, 1000) == pytest.approx(0.5)
    assert rate(1.0, 1000) == 0.0


def test_looks_are_rewarded_where_the_word_is() -> None:
    """A head that looks at the word's frames alone has no loss, one that looks elsewhere has much."""
    spans = torch.tensor([[[True, True, False], [False, False, False]]])

    right = look_loss(torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]]), spans)
    wrong = look_loss(torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]), spans)

    assert right == pytest.approx(0, abs=1e-3)
    assert wrong > 5
