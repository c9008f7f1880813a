"""Reordered weights give the same results, the same bits for any number of rows, or are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.llm import linears


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inner", "outer"), [(48, 80), (256, 704), (704, 256), (64, 7)])
def test_rows_do_not_depend_on_their_number(inner: int, outer: int, bias: bool) -> None:
    """A row's result is close to the library's, and the same bits among 1 to 300 rows."""
    layer = nn.Linear(inner, outer, bias=bias)
    rows = torch.randn(1, 300, inner, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = layer(rows)
        if not linears.pack(layer):
            pytest.skip("this torch has no such operators")
        whole = layer(rows)

        assert torch.allclose(whole, expected, atol=1e-4)
        for count in (1, 2, 3, 4, 7, 16, 65, 299):
            assert torch.equal(layer(rows[:, -count:]), whole[:, -count:])


def test_without_the_operators_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a torch without them, layers stay as they are."""
    monkeypatch.setattr(linears, "_packed", lambda _: torch.ops.mkldnn.there_is_no_such_operator)
    layer = nn.Linear(8, 8)

    assert not linears.pack(layer)
    assert "forward" not in vars(layer)


def test_wrong_results_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that compute something else are not used."""
    monkeypatch.setattr(linears, "_packed", lambda layer: lambda rows: rows @ layer.weight.T + 1)
    layer = nn.Linear(8, 8)

    assert not linears.pack(layer)


def test_large_models_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model too large for a second copy of its weights keeps one."""
    monkeypatch.setattr(linears, "MOST_BYTES", 100)

    assert not linears.pack(nn.Linear(8, 8))
