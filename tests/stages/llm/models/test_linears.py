"""Reordered weights give the same results, the same bits for any number of rows, or are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from stages.llm.models import linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inner", "outer"), [(48, 80), (256, 704), (704, 256), (64, 7)])
def test_rows_do_not_depend_on_their_number(inner: int, outer: int, bias: bool, dtype: torch.dtype) -> None:
    """A row's result is close to the library's, and the same bits among 1 (bfloat16: 2) to 300 rows."""
    layer = nn.Linear(inner, outer, bias=bias, dtype=dtype)
    rows = torch.randn(1, 300, inner, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        expected = layer(rows)
        if not linears.pack(layer):
            pytest.skip("this torch has no such operators")
        whole = layer(rows)

        assert torch.allclose(whole, expected, atol=1e-4 if dtype == torch.float32 else 5e-2)
        for count in (*([1] if dtype == torch.float32 else []), 2, 3, 4, 7, 16, 65, 299):
            assert torch.equal(layer(rows[:, -count:]), whole[:, -count:])


def test_without_the_operators_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a torch without them, layers stay as they are."""
    monkeypatch.setattr(linears, "_packed", lambda *_: torch.ops.mkldnn.there_is_no_such_operator)
    layer = nn.Linear(8, 8)

    assert not linears.pack(layer)
    assert "forward" not in vars(layer)


def test_wrong_results_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that compute something else are not used."""
    monkeypatch.setattr(linears, "_packed", lambda weight, _: lambda rows: rows @ weight.T + 1)
    layer = nn.Linear(8, 8)

    assert not linears.pack(layer)


def test_large_models_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model too large for a second copy of its weights keeps one."""
    monkeypatch.setattr(linears, "MOST_BYTES", 100)

    assert not linears.pack(nn.Linear(8, 8))


@pytest.mark.parametrize("quantized", [False, True])
def test_transposed_layers_too(quantized: bool) -> None:
    """The layers of GPT-2, whose weights are transposed, are computed in the same ways."""
    layer = Conv1D(24, 16)
    rows = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = layer(rows)
        if quantized:
            linears.quantize(layer)
        elif not linears.pack(layer):
            pytest.skip("this torch has no such operators")

        assert torch.allclose(layer(rows), expected, atol=5e-3 if quantized else 1e-5)


@pytest.mark.parametrize("way", ["packed", "plain", "int8"])
@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False), (True, False, True)])
def test_joined_is_what_its_parts_are(way: str, biases: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """One product for several layers has their outputs behind each other, with and without biases."""
    layers = [nn.Linear(32, width, bias=bias) for width, bias in zip((24, 8, 40), biases, strict=True)]
    rows = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if way == "int8":
            linears.quantize(nn.ModuleList(layers))
        if way == "plain":
            monkeypatch.setattr(linears, "_packed", lambda *_: torch.ops.mkldnn.there_is_no_such_operator)
        expected = torch.cat([layer(rows) for layer in layers], -1)
        got = linears.joined(layers)(rows)

        assert torch.equal(got, expected) if way == "int8" else torch.allclose(got, expected, atol=1e-5)
        assert torch.allclose(torch.cat([layer(rows) for layer in layers], -1), expected)  # they are as they were


def test_what_is_computed_as_it_is_has_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weights cannot be reordered, the parts of a joined product are views of it: no second copy on a GPU."""
    monkeypatch.setattr(linears, "_packed", lambda *_: torch.ops.mkldnn.there_is_no_such_operator)
    layers = [nn.Linear(16, 8, bias=False), nn.Linear(16, 24, bias=False)]

    linears.joined(layers)

    one, other = (layer.weight for layer in layers)
    assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
