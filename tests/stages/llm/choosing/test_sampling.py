"""Tokens are drawn from exactly the model's distribution, and the noise is the same everywhere."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.messages import Sampling
from stages.llm.choosing import sampling
from stages.llm.choosing.noise import gumbel
from stages.llm.choosing.penalties import shift_of
from stages.llm.choosing.sampling import Choice, likelihoods, sample

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
    """However small top_p is, the likeliest token can be drawn, and no other."""
    assert sample(LOGITS.expand(50, -1), [Choice(n, n, 5.0, top_p=1e-9) for n in range(50)]) == [0] * 50


def test_equally_likely_tokens_stay_or_go_together() -> None:
    """Where top-p or top-k end among equals, all of them are drawn, also such as are not looked at first."""
    logits = torch.zeros(1, 400)
    logits[0, 7] = 8.0  # its probability is .88
    for ask in (Choice(0, 0, 1.0, top_p=0.9), Choice(0, 0, 1.0, top_k=2)):
        drawn = set(sample(logits.expand(3000, -1), [ask._replace(seed=seed) for seed in range(3000)]))
        assert len(drawn) > 200  # of 256 looked at first, some 150 are drawn


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
    noise = gumbel([(42, 7)], torch.arange(4))[0].tolist()

    assert noise == pytest.approx(NOISE, abs=1e-12)


def test_noise_has_gumbels_moments() -> None:
    """Its mean is Euler's constant and its variance pi squared over 6; neighbours in position are not related."""
    noise = gumbel([(1, 1), (1, 2)], torch.arange(200_000))

    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    assert abs(torch.corrcoef(noise)[0, 1].item()) < 0.01


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 - 1])
def test_any_seed_will_do(seed: int) -> None:
    """Seeds of 64 bits, negative ones too, are taken as they come."""
    assert gumbel([(seed, 0)], torch.arange(8)).isfinite().all()


def expected(temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """The exact distribution, token by token, from what the parameters mean."""
    probabilities = (LOGITS.double() / temperature).softmax(-1).tolist()
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    inside = order[: top_k or len(order)]
    mass, kept = sum(probabilities[token] for token in inside), list[int]()
    for token in inside:
        if sum(probabilities[other] for other in kept) / mass < top_p:
            kept.append(token)
    kept = [token for token in kept if probabilities[token] >= min_p * probabilities[order[0]]]
    share = sum(probabilities[token] for token in kept)
    return torch.tensor([p / share if token in kept else 0.0 for token, p in enumerate(probabilities)])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 3, 1.0, 0.0),
        (1.5, 0, 1.0, 0.3),
        (0.7, 0, 0.9, 0.0),
        (2.0, 4, 0.8, 0.1),
        (1.0, 100, 1.0, 0.0),
        (1.0, 5, 0.9999, 0.25),
    ],
)
def test_draws_follow_the_truncated_distribution(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    """Only what top-k, top-p and min-p leave is drawn, in proportion (1 in 10,000; fixed seeds)."""
    choices = [Choice(seed, 4, temperature, top_p, top_k, min_p) for seed in range(DRAWS)]
    counts = torch.bincount(torch.tensor(sample(LOGITS.expand(DRAWS, -1), choices)), minlength=len(LOGITS)).double()

    probabilities = expected(temperature, top_k, top_p, min_p)
    assert (probabilities > 0).sum() > 1
    assert chi_square(counts, probabilities) < 25.7  # at most 5 degrees of freedom


WIDE = torch.randn(11, 1201, generator=torch.Generator().manual_seed(5)) * 2
SOME = torch.tensor([0x0F0F00FF, -1, 1, -(1 << 31), 7], dtype=torch.int32)
MIXED = [
    Choice(1, 5, 0.0),
    Choice(1, 5, 1.0),
    Choice(2, 6, 0.8, top_p=0.9),
    Choice(3, 6, 1.2, top_p=0.9999),
    Choice(4, 7, 1.0, top_k=40),
    Choice(5, 8, 1.0, min_p=0.05),
    Choice(6, 8, 1.0, 0.95, 700, 0.001),
    Choice(7, 9, 0.7, top_k=3),
    Choice(8, 9, 5.0),
    Choice(9, 9, 0.0, mask=SOME),
    Choice(9, 9, 4.0, 0.99, mask=SOME),
]


def test_each_row_is_what_it_is_alone() -> None:
    """Whatever stands in the batch beside it, and in whatever order, a row's token is the same."""
    alone = [sample(WIDE[row : row + 1], [choice])[0] for row, choice in enumerate(MIXED)]

    for shift in range(len(MIXED)):
        order = [(row + shift) % len(MIXED) for row in range(len(MIXED))]
        assert sample(WIDE[order], [MIXED[row] for row in order]) == [alone[row] for row in order]


def test_few_or_all_tokens_are_looked_at_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at the likeliest ones first saves time and changes no token."""
    few = [sample(WIDE, [choice._replace(seed=seed) for choice in MIXED]) for seed in range(20)]
    monkeypatch.setattr(sampling, "SHORT", 2000)

    assert few == [sample(WIDE, [choice._replace(seed=seed) for choice in MIXED]) for seed in range(20)]


def test_plain_rows_cost_one_argmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody asks for anything, nothing but the argmax is computed."""
    monkeypatch.setattr(sampling, "_draw", None)

    assert sample(WIDE, [Choice(n, n, 0.0, 0.5, 7) for n in range(11)]) == WIDE.argmax(-1).tolist()


def test_masked_tokens_are_never_chosen() -> None:
    """Only tokens whose bit is set are drawn, all of them are, and none beyond the mask."""
    bits = {token for token in range(160) if int(SOME[token >> 5]) >> (token & 31) & 1}
    choices = [Choice(seed, 1, 50.0, mask=SOME) for seed in range(2000)]

    assert set(sample(WIDE[:1].expand(2000, -1), choices)) == bits


def test_likelihoods_are_the_models_own() -> None:
    """The logarithm of the softmax at temperature 1, with the likeliest tokens in order."""
    first, second = likelihoods(LOGITS.expand(2, -1), [1, 5], 2)

    probabilities = LOGITS.double().softmax(-1)
    assert (first.id, second.id, [one.id for one in second.top]) == (1, 5, [0, 1])
    assert first.logprob == pytest.approx(math.log(probabilities[1]))
    assert [one.logprob for one in second.top] == pytest.approx([math.log(probabilities[token]) for token in (0, 1)])


def test_likelihoods_can_be_written() -> None:
    """What has no probability at all has a number still, as JSON knows no infinity."""
    (one,) = likelihoods(torch.tensor([[0.0, -math.inf]]), [1], 9)

    assert (one.logprob, [other.logprob for other in one.top]) == (-9999.0, [0.0, -9999.0])


def test_what_is_given_stays_as_it_is() -> None:
    """The logits are the caller's: likelihoods are told by them afterwards."""
    logits, shift = WIDE.clone(), shift_of(Sampling(logit_bias=((5, 50.0),)), [1, 2], 1)

    sample(logits, [choice._replace(shift=shift) for choice in MIXED])

    assert torch.equal(logits, WIDE)


@pytest.mark.parametrize("temperature", [1e-3, 1e-200, 1e-320], ids=str)
def test_next_to_no_temperature_is_next_to_greedy(temperature: float) -> None:
    """However little divides the logits, the likeliest token stays the likeliest."""
    assert sample(LOGITS.expand(50, -1), [Choice(n, n, temperature, 1.0) for n in range(50)]) == [0] * 50
