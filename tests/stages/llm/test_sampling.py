"""Tokens are drawn from exactly the model's distribution, and the noise is the same everywhere."""

from __future__ import annotations

import math

import pytest
import torch

from stages.llm.sampling import Choice, gumbel, nucleus, sample

DRAWS = 20_000
NOISE = [0.811434365184483, -0.715471954673673, 0.2123750853501, -0.035626470821279]
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Pearson's statistic over the tokens that can occur."""
    possible = probabilities > 0
    assert not counts[~possible].any()
    expected = probabilities[possible] * counts.sum()
    return float(((counts[possible] - expected) ** 2 / expected).sum())


def drawn(temperature: float, top_p: float, *, seeds: bool) -> torch.Tensor:
    """How often each token was drawn, by as many seeds or at as many positions of one."""
    choices = [Choice(n if seeds else 3, 9 if seeds else n, temperature, top_p) for n in range(DRAWS)]
    return torch.bincount(torch.tensor(sample(LOGITS.expand(DRAWS, -1), choices)), minlength=len(LOGITS)).double()


@pytest.mark.parametrize("seeds", [True, False], ids=["over seeds", "over positions"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float, seeds: bool) -> None:
    """The frequencies pass a chi-square test at the level of 1 in 10,000 (fixed seeds: it passes always or never)."""
    probabilities = (LOGITS.double() / temperature).softmax(-1)

    assert chi_square(drawn(temperature, 1.0, seeds=seeds), probabilities) < 25.7  # 5 degrees of freedom


def test_draws_within_the_nucleus_follow_the_distribution() -> None:
    """With top_p only the likeliest tokens that make up that mass are drawn, in proportion."""
    probabilities = LOGITS.double().softmax(-1)
    inside = torch.tensor([True, True, True, False, False, False])
    assert probabilities[:2].sum() < 0.8 < probabilities[:3].sum()

    counts = drawn(1.0, 0.8, seeds=True)

    assert chi_square(counts, probabilities * inside / probabilities[inside].sum()) < 18.4  # 2 degrees of freedom


def test_nucleus_keeps_at_least_one() -> None:
    """However small top_p is, the likeliest token stays."""
    assert nucleus(LOGITS.double(), 1e-9).isfinite().tolist() == [True, False, False, False, False, False]


def test_temperature_zero_takes_the_likeliest() -> None:
    """Without temperature the seed has no say."""
    assert sample(LOGITS[None].repeat(3, 1), [Choice(seed, 1, 0.0, 0.5) for seed in range(3)]) == [0, 0, 0]


def test_rows_are_chosen_each_in_its_own_way() -> None:
    """Greedy and drawn rows may stand in one batch; each is what it is alone."""
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    choices = [Choice(1, 5, 1.0, 1.0), Choice(1, 5, 0.0, 1.0), Choice(2, 6, 1.5, 0.5), Choice(1, 6, 1.0, 1.0)]

    together = sample(logits, choices)

    assert together == [sample(logits[n : n + 1], [choice])[0] for n, choice in enumerate(choices)]


def test_noise_is_the_same_on_every_machine() -> None:
    """These values are part of the contract: another worker, another platform must find them again."""
    noise = gumbel([Choice(42, 7, 1.0, 1.0)], 4, torch.device("cpu"))[0].tolist()

    assert noise == pytest.approx(NOISE, abs=1e-12)


def test_noise_has_gumbels_moments() -> None:
    """Its mean is Euler's constant and its variance pi squared over 6; neighbours in position are not related."""
    noise = gumbel([Choice(1, 1, 1.0, 1.0), Choice(1, 2, 1.0, 1.0)], 200_000, torch.device("cpu"))

    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    assert abs(torch.corrcoef(noise)[0, 1].item()) < 0.01


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 - 1])
def test_any_seed_will_do(seed: int) -> None:
    """Seeds of 64 bits, negative ones too, are taken as they come."""
    assert gumbel([Choice(seed, 0, 1.0, 1.0)], 8, torch.device("cpu")).isfinite().all()
