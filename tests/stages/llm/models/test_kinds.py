"""Each kind of model says what `generate` says, or is refused by the name of what it needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    NemotronConfig,
    NemotronForCausalLM,
    PreTrainedModel,
)

from pipeline.errors import ModelLoadError
from stages.llm.engine import TorchEngine
from stages.llm.models import kinds
from stages.llm.models.configs import positions_of
from stages.llm.models.model import load_model
from stages.llm.pace import Pace
from tests.stages import models
from tests.stages.llm.running import answer, make_prompt, reference, some_ids

pytestmark = pytest.mark.slow  # all of them together: every kind of model, with weights

LENGTHS = (3, 34, 65, 96)
"""Of the prompts: below and beyond a window of 24 and a block of 64."""

ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "one KV head, untied": ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    "biases": ("llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}),
    "llama3's angles": (
        "llama",
        {"rope_parameters": {**ROPE, "original_max_position_embeddings": 64, "rope_theta": 10000.0}},
    ),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}}),
    "no window": ("mistral", {"sliding_window": None}),
    "some layers' window": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "grouped, norms, biases": ("qwen3", {"num_key_value_heads": 2, "attention_bias": True}),
    "untied": ("gpt2", {"tie_word_embeddings": False}),
    **{kind: (kind, {}) for kind in models.OTHERS},
}


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("name", VARIANTS)
async def test_says_what_generate_says(name: str, tmp_path: Path) -> None:
    """Greedy answers are those of `generate`, alone and in a ragged batch whose prompts are computed in pieces."""
    kind, changes = VARIANTS[name]
    model = load_model(models.save(tmp_path, kind, **changes), device="cpu")
    prompts = [make_prompt(some_ids(n, n), session=f"s{n}", max_output_tokens=16) for n in LENGTHS]
    expected = [reference(model, prompt) for prompt in prompts]
    assert len(set(expected[1][0])) > 3  # it does not merely repeat itself

    async with TorchEngine(model, pace=Pace(target_s=1e-9, least=5, most=7)) as engine:
        alone = [await answer(engine, prompt) for prompt in prompts[1:3]]
    async with TorchEngine(model, pace=Pace(target_s=1e-9, least=5, most=7)) as engine:
        together = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

    assert [(ids, finish) for ids, finish, _ in alone] == expected[1:3]
    assert [(ids, finish) for ids, finish, _ in together] == expected


SHAPE: dict[str, Any] = models._SHAPE
FEW: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LATENT: dict[str, Any] = {
    **SHAPE,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
CONVOLUTIONS: dict[str, Any] = {**SHAPE, "layer_types": ["conv", "full_attention"]}
OLD: dict[str, Any] = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 512, "rotary_dim": 8}
STRANGERS: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "bloom": (
        BloomForCausalLM,
        BloomConfig,
        {"vocab_size": 512, "hidden_size": 48, "n_layer": 2, "n_head": 4},
        "ALiBi",
    ),
    "mpt": (MptForCausalLM, MptConfig, {"vocab_size": 512, "d_model": 48, "n_layers": 2, "n_heads": 4}, "ALiBi"),
    "falcon": (FalconForCausalLM, FalconConfig, FEW, "2 of its 2 layers have another attention, or none"),
    "gptj": (GPTJForCausalLM, GPTJConfig, OLD, "2 of its 2 layers have another attention, or none"),
    "deepseek": (DeepseekV3ForCausalLM, DeepseekV3Config, LATENT, r"latent attention \(kv_lora_rank\)"),
    "gpt_oss": (GptOssForCausalLM, GptOssConfig, {**SHAPE, "head_dim": 16, "num_local_experts": 2}, "attention sinks"),
    "mamba": (MambaForCausalLM, MambaConfig, {"hidden_size": 48}, "layers of type linear_attention"),
    "lfm2": (Lfm2ForCausalLM, Lfm2Config, CONVOLUTIONS, "layers of type conv"),
    "nemotron": (NemotronForCausalLM, NemotronConfig, SHAPE, "keep from their attention what is passed"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STRANGERS)
def test_what_cannot_be_run_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """A model whose layers need more than plain attention is refused at load, and the error says what it is."""
    kind, config, shape, words = STRANGERS[name]
    network: PreTrainedModel = kind(config(**{**shape, "vocab_size": 512}))
    network.save_pretrained(tmp_path)
    models.byte_level().save_pretrained(tmp_path)

    with pytest.raises(ModelLoadError, match=words):
        load_model(tmp_path, device="cpu")


def test_cross_attention_is_refused_by_name(tmp_path: Path) -> None:
    """A decoder that looks at an encoder's states as well."""
    with pytest.raises(ModelLoadError, match="models of type gpt2: cross-attention"):
        load_model(models.save(tmp_path, "gpt2", add_cross_attention=True), device="cpu")


def test_a_window_that_is_not_asked_for_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers whose mask has another window than they ask for would go wrong only in long texts: refused at load."""
    monkeypatch.setattr(kinds, "_window", lambda config, layer: 24)
    with pytest.raises(ModelLoadError, match="layer 0 asks for a window of None, its mask for 24"):
        load_model(models.save(tmp_path), device="cpu")


def test_listening_leaves_no_trace(tmp_path: Path) -> None:
    """After it, the network answers as before."""
    network = models.llama()
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.inference_mode():
        before = network(input_ids=ids).logits
        heard = kinds.listen(network)

        assert torch.equal(network(input_ids=ids).logits, before)
    assert [(asked.layer, asked.window, asked.features) for asked in heard] == [(0, None, ()), (1, None, ())]


def test_experts_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mixture of experts runs, and the log says that its last bits depend on the company."""
    MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=4)).save_pretrained(tmp_path)
    models.byte_level().save_pretrained(tmp_path)

    load_model(tmp_path, device="cpu")

    assert "mixture of experts" in caplog.text


def test_angles_that_change_for_the_whole_batch_end_the_context(tmp_path: Path) -> None:
    """With "longrope" no position is taken at which all angles would change, in a stage without weights either."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "rope_theta": 10000.0}
    folder = models.save(tmp_path, "phi3", rope_parameters=rope, original_max_position_embeddings=128)

    assert load_model(folder, device="cpu").context == positions_of(str(folder)) == 128
    with pytest.raises(ModelLoadError, match="has 128 positions"):
        load_model(folder, device="cpu", context=200)
