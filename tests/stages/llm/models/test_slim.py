"""The engine's forward pass in torch says what the library's says, in all precisions, and stands aside where not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.llm.models import slim
from stages.llm.models.model import DType, LoadedModel, load_model
from tests.stages import models
from tests.stages.conftest import DEMO
from tests.stages.llm.test_same_bits import LENGTHS, alone

pytestmark = pytest.mark.slow  # all of them together: every kind of model, with weights

NEAR: dict[DType, float] = {"float32": 1e-4, "bfloat16": 3e-2, "int8": 3e-2}
"""How far the logits may be apart, of the largest."""

ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "llama3's angles": (
        "llama",
        {"rope_parameters": {**ROPE, "original_max_position_embeddings": 64, "rope_theta": 10000.0}},
    ),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, some layers' window": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("qwen3", {}),
    "qwen3 with biases": ("qwen3", {"num_key_value_heads": 2, "attention_bias": True}),
}


def is_slim(model: LoadedModel) -> bool:
    """Whether the engine's own forward pass is in use."""
    return "forward" in vars(model.network)


def last_logits(model: LoadedModel) -> Tensor:
    """Of prompts of several lengths."""
    return torch.stack([alone(model, length) for length in LENGTHS])


@pytest.mark.filterwarnings("ignore")  # the library's own, of rope
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", VARIANTS)
def test_it_says_what_the_library_says(name: str, dtype: DType, tmp_path: Path) -> None:
    """The logits are near those of the library's forward pass with the same weights."""
    kind, changes = VARIANTS[name]
    folder = models.save(tmp_path, kind, **{"initializer_range": 0.1, **changes})
    own = load_model(folder, device="cpu", dtype=dtype, forward="torch")
    library = load_model(folder, device="cpu", dtype=dtype, forward="library")
    assert (is_slim(own), is_slim(library)) == (True, False)

    got, expected = last_logits(own), last_logits(library)

    assert (got - expected).abs().max() <= NEAR[dtype] * expected.abs().max()


def test_other_models_are_the_librarys(load: Callable[[str], LoadedModel]) -> None:
    """A kind of model it does not know stays as it is."""
    assert not is_slim(load("gpt2"))


def test_one_strange_module_is_enough(tmp_path: Path) -> None:
    """A network with a module in it that is of no known class is not touched, nor one with another activation."""
    network = models.llama()
    assert slim.known(network)
    network.model.layers[1].mlp.act_fn = torch.nn.Tanh()
    assert not slim.known(network)
    assert not slim.known(models.llama(hidden_act="gelu"))


def test_it_stands_aside_where_it_errs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If it says anything else than the library at load, the model is the library's, and the log says so."""
    expected = last_logits(load_model(models.save(tmp_path), device="cpu", forward="library"))
    monkeypatch.setattr(slim, "_turned", lambda heads, cosines, sines: heads * cosines)

    model = load_model(tmp_path, device="cpu", forward="torch")

    assert not is_slim(model)
    assert "is computed in a slower way" in caplog.text
    assert torch.equal(last_logits(model), expected)


def test_other_calls_are_the_librarys(tmp_path: Path) -> None:
    """`generate` and all else that calls the network without a batch of the engine's is as before."""
    model = load_model(models.save(tmp_path), device="cpu", forward="torch")
    assert is_slim(model)
    network = model.network
    own = type(network)(network.config).eval()
    own.load_state_dict(network.state_dict())
    own.set_attn_implementation("eager")
    ids = torch.tensor([[7, 8, 9]])
    attention = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            assert torch.allclose(network(input_ids=ids).logits, own(input_ids=ids).logits, atol=1e-4)
    finally:
        network.set_attn_implementation(attention)


def test_positions_at_the_end_are_there(tmp_path: Path) -> None:
    """The last position of a context smaller than the model's has its angles."""
    model = load_model(models.save(tmp_path, initializer_range=0.1), device="cpu", context=200, forward="torch")
    library = load_model(tmp_path, device="cpu", context=200, forward="library")

    assert torch.allclose(alone(model, 200), alone(library, 200), atol=1e-3)


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="the demo model is not built")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["target", "draft"])
def test_the_demo_models_are_computed_by_it(name: str, dtype: DType) -> None:
    """Both models that we ship, in each precision."""
    assert is_slim(load_model(DEMO.parent / name, device="cpu", dtype=dtype, forward="torch"))
