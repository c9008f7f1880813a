"""Products with weights of 8 bits: near enough, exact in their integers, and each row for itself."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages.llm.models import int8, linears
from stages.llm.models.model import Forward, load_model
from tests.stages import models

ROUNDING = 0.02
"""How far two roundings to 8 bits move a sum of many products, of the largest of them."""


def some(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["as it comes", "reordered", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the ways to compute the integers' sums."""
    if request.param == "reordered":
        monkeypatch.setattr(int8, "LARGE", 0)
    if request.param == "plain":
        monkeypatch.setattr(int8, "_matrix_sums", lambda _: torch.ops.aten.there_is_no_such_operator)
    return str(request.param)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inner", "outer"), [(48, 80), (704, 256), (2100, 9)])
def test_near_and_each_row_for_itself(inner: int, outer: int, bias: bool, way: str) -> None:
    """A row's result is near the one of floats, and the same bits among 1 to 130 rows, however it is computed."""
    layer = nn.Linear(inner, outer, bias=bias)
    rows = some(1, 130, inner)
    with torch.inference_mode():
        expected = layer(rows)
        linears.quantize(layer)
        whole = layer(rows)

        assert (whole - expected).abs().max() <= ROUNDING * expected.abs().max()
        assert not torch.equal(whole, expected)
        for count in (1, 2, 3, 5, 64, 129):
            assert torch.equal(layer(rows[:, -count:]), whole[:, -count:])


def test_all_ways_have_the_same_bits() -> None:
    """Reordered weights or not: the sums are exact, so the results are the same."""
    weight = (some(96, 300) * 40).round().clamp(-127, 127).to(torch.int8)
    rows = (some(7, 300, seed=1) * 40).round().clamp(-127, 127).to(torch.int8)
    exact = rows.double() @ weight.double().T

    for sums in (int8._packed_sums, int8._matrix_sums, int8._plain_sums):
        assert torch.equal(sums(weight)(rows).double(), exact)


def test_sums_that_overflow_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose sums stop at 16 bits, as on processors without VNNI, is not used."""
    monkeypatch.setattr(
        int8, "_matrix_sums", lambda weight: lambda rows: (rows.int() @ weight.t().int()).clamp(-(2**15), 2**15 - 1)
    )
    weight = torch.full((4, 64), 127, dtype=torch.int8)

    assert int8.exact_sums(weight)(weight)[0, 0] == 127 * 127 * 64


def test_a_row_of_zeros_is_zero() -> None:
    """Nothing is divided by a peak of zero."""
    layer = nn.Linear(8, 4, bias=False)
    linears.quantize(layer)

    assert torch.equal(layer(torch.zeros(1, 3, 8)), torch.zeros(1, 3, 4))


def test_a_large_row_does_not_coarsen_the_others() -> None:
    """Each row is rounded by its own peak: beside one that is a million times as large, another is what it was."""
    layer = nn.Linear(64, 32)
    linears.quantize(layer)
    rows = some(1, 4, 64)
    with torch.inference_mode():
        alone = layer(rows[:, :1])
        beside = layer(torch.cat([rows[:, :1], rows[:, 1:] * 1e6], 1))

    assert torch.equal(alone, beside[:, :1])


def test_no_number_stays_none() -> None:
    """A weight or a row that is no number gives none, so that somebody notices."""
    broken, whole = nn.Linear(8, 4, bias=False), nn.Linear(8, 4, bias=False)
    with torch.inference_mode():
        broken.weight[1, 2] = float("nan")
        for layer in (broken, whole):
            linears.quantize(layer)

        assert broken(torch.ones(1, 1, 8)).isnan().any()
        assert whole(torch.full((1, 1, 8), float("nan"))).isnan().all()


def test_only_the_weights_are_rounded_on_a_gpu() -> None:
    """The way of a GPU, here on the CPU: near the product of floats, with rows as they are."""
    weight, rows = some(32, 64), some(5, 64, seed=1).bfloat16()
    peaks = weight.abs().amax(1) / 127
    product = int8._weight_only((weight / peaks[:, None]).round().to(torch.int8), peaks)

    expected = rows.float() @ weight.T
    assert (product(rows).float() - expected).abs().max() <= ROUNDING * expected.abs().max()


def held() -> dict[int, int]:
    """The memory of all integers of 8 bits that are about: its size by its address."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) is Tensor and one.dtype == torch.int8]
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}


@pytest.mark.slow
@pytest.mark.parametrize("forward", ["auto", "library"])
def test_the_weights_are_there_once(forward: Forward, tmp_path: Path) -> None:
    """After loading, a model's linear layers hold one byte for each weight, and nothing else of them is left."""
    models.save(tmp_path)
    others = held()
    network = load_model(tmp_path, device="cpu", dtype="int8", forward=forward).network
    found = sum(size for address, size in held().items() if address not in others)

    head = network.config.vocab_size * network.config.hidden_size
    weights = sum(weight.numel() for name, weight in models.llama().named_parameters() if "proj" in name) + head
    assert all(layer.weight.numel() == 0 for name, layer in network.named_modules() if name.endswith("proj"))
    assert found == weights
