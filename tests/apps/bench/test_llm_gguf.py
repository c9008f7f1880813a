"""Our weights as llama.cpp reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from apps.bench.llm_gguf import PRECISIONS, gguf_name, write_gguf
from pipeline.errors import ModelLoadError

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CLOSE = {"F32": 0.0, "F16": 1e-4, "BF16": 1e-3, "Q8_0": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama."""
    torch.manual_seed(1)
    where = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(where)
    return where


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_weight_is_there_in_its_precision(folder: Path, tmp_path: Path, precision: Any) -> None:
    """Matrices in the precision asked for, vectors in float32, each with the values it had."""
    write_gguf(folder, tmp_path / "model.gguf", precision)
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    weights = load_file(folder / "model.safetensors")
    assert set(tensors) == {gguf_name(name) for name in weights}
    for name, weight in weights.items():
        found = tensors[gguf_name(name)]
        assert found.tensor_type.name == ("F32" if weight.ndim == 1 else precision)
        if "q_proj" not in name and "k_proj" not in name:
            values = dequantize(found.data, found.tensor_type).reshape(weight.shape)
            np.testing.assert_allclose(values, weight.numpy(), atol=CLOSE[precision])


def test_queries_and_keys_are_in_llama_cpp_s_order(folder: Path, tmp_path: Path) -> None:
    """It turns neighbours: rows 0 and d/2 of a head, which Hugging Face turns, come to stand side by side."""
    write_gguf(folder, tmp_path / "model.gguf", "F32")
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    weights = load_file(folder / "model.safetensors")
    for theirs, ours in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
        weight = weights[f"model.layers.1.self_attn.{ours}.weight"].numpy()
        rows = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
        np.testing.assert_array_equal(tensors[f"blk.1.{theirs}.weight"].data[:16], weight[rows])
        np.testing.assert_array_equal(tensors[f"blk.1.{theirs}.weight"].data[16:32], weight[16:32][rows])


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    """Written as a Llama it would be answered for, wrongly."""
    Qwen2ForCausalLM(Qwen2Config(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="qwen2"):
        write_gguf(tmp_path, tmp_path / "model.gguf", "F32")
