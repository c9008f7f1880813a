"""What a model keeps of a token is learned from a trial call, and models that it does not fit are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from stages.llm.cache.kv import Shape
from stages.llm.models.attention import Survey, ragged_attention


def asked(survey: Survey, layer: int, *, kv_heads: int = 2, size: int = 8, values: int = 8) -> torch.Size:
    """A layer with four query heads asks for attention for one token; the shape of what it gets."""
    query, key = torch.zeros(1, 4, 1, size), torch.zeros(1, kv_heads, 1, size, dtype=torch.bfloat16)
    value = torch.zeros(1, kv_heads, 1, values)
    result, _ = ragged_attention(SimpleNamespace(layer_idx=layer), query, key, value, None, ragged=survey)
    return result.shape


def test_the_shape_is_learned_from_the_layers() -> None:
    """Layers, heads of keys, their size and their precision."""
    survey = Survey()

    assert [asked(survey, layer) for layer in range(3)] == [(1, 1, 4, 8)] * 3
    assert survey.shape == Shape(3, 2, 8, torch.bfloat16, torch.device("cpu"))


def test_layers_of_different_shapes_are_refused() -> None:
    """One store cannot hold them."""
    survey = Survey()
    asked(survey, 0)
    asked(survey, 1, kv_heads=1)

    with pytest.raises(NotImplementedError, match="keys of different shapes"):
        _ = survey.shape


@pytest.mark.parametrize("layers", [[], [1], [0, 2]])
def test_layers_without_attention_are_refused(layers: list[int]) -> None:
    """A model whose layers do not all come to us keeps something that we do not know of."""
    survey = Survey()
    for layer in layers:
        asked(survey, layer)

    with pytest.raises(NotImplementedError, match="do not all ask"):
        _ = survey.shape


def test_values_of_another_size_are_refused() -> None:
    """Keys and values lie in one tensor."""
    with pytest.raises(NotImplementedError, match="different sizes"):
        asked(Survey(), 0, values=16)
