"""Functions of single numbers have the same bits for a row in any batch, with several threads too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.nn.functional import gelu, silu

from stages.llm.models.rowwise import SHARE, in_pieces, steady
from tests.stages import models

COUNTS = (4, 12, 52, 100, 128, 200)


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    """Enough threads for a share to end in the middle of a row."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def some(rows: int, width: int) -> torch.Tensor:
    """Normal numbers, [1, rows, width]."""
    return torch.randn(1, rows, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("function", [silu, lambda rows: gelu(rows, approximate="tanh")], ids=["silu", "gelu"])
@pytest.mark.parametrize("width", [704, 256, 40_000])
def test_a_row_is_the_same_in_any_number(width: int, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Its bits do not depend on how many rows are computed, also where a row alone is too much for one thread."""
    rows = some(max(COUNTS) if width < SHARE else 16, width)
    whole = in_pieces(function, rows)

    for count in (one for one in COUNTS if one <= rows.shape[1]):
        assert torch.equal(in_pieces(function, rows[:, :count].contiguous()), whole[:, :count])


def test_it_is_what_the_function_is() -> None:
    """The pieces are put together as they were."""
    rows = some(200, 704)

    assert torch.allclose(in_pieces(torch.tanh, rows), rows.tanh(), atol=1e-6)
    assert torch.equal(in_pieces(torch.tanh, rows[:, :3]), rows[:, :3].tanh())


def test_angles_are_the_same_at_any_place() -> None:
    """A position has the same cosines and sines among any others."""
    network = models.llama(head_dim=128, max_position_embeddings=4096)
    steady(network)
    rotary, rows = network.model.rotary_emb, some(1, 48)
    with torch.inference_mode():
        cosines, sines = rotary(rows, torch.arange(2000)[None])

        for start, end in ((0, 4), (500, 1901), (3, 700)):
            part = rotary(rows, position_ids=torch.arange(start, end)[None])
            assert torch.equal(part[0], cosines[:, start:end])
            assert torch.equal(part[1], sines[:, start:end])
