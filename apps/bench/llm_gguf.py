"""Write a Llama of ours as a GGUF file, for llama.cpp to run the very same weights. Needs the `gguf` package.

The file need have no tokenizer: llama.cpp is given token ids, but where it serves text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from pipeline.errors import ModelLoadError

Precision = Literal["F32", "F16", "BF16", "Q8_0"]

FILE_TYPES: dict[Precision, LlamaFileType] = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""What llama.cpp calls a module, by what Hugging Face calls it; those of layers are `blk.N.` there."""


def write_gguf(folder: Path, path: Path, precision: Precision, *, spelt: bool = False) -> None:
    """Write the model in `folder` to `path`, matrices in `precision` and vectors in float32.

    With its tokenizer if it shall be `spelt`, which must be a byte-level BPE. llama.cpp knows no other ways to cut text
    into words than those of well-known models: unusual text may become other tokens there.

    Raises:
        ModelLoadError: it is no Llama, or has rotary embeddings of another kind than the plain one.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    rotary = config.rope_parameters
    if config.model_type != "llama" or rotary["rope_type"] != "default":
        raise ModelLoadError(str(folder), f"only a plain Llama can be written as GGUF, not {config.model_type}")
    writer = GGUFWriter(path, "llama")
    _describe(writer, config, precision)
    if spelt:
        _describe_tokenizer(writer, folder)
    else:
        writer.add_tokenizer_model("no_vocab")
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            _add(writer, gguf_name(name), _as_llama_cpp(name, tensor, config), precision)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight` there."""
    module, _, kind = name.rpartition(".")
    if not module.startswith("model.layers."):
        return f"{NAMES[module]}.{kind}"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{NAMES[inner]}.{kind}"


def _describe(writer: GGUFWriter, config: Any, precision: Precision) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(FILE_TYPES[precision])


def _describe_tokenizer(writer: GGUFWriter, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    controls = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama3" if vocabulary.get("ignore_merges") else "gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types([TokenType.CONTROL if one in controls else TokenType.NORMAL for one in range(len(pieces))])
    merges = vocabulary["merges"] or [next(piece for piece in pieces if len(piece) == 2)]  # there must be one
    writer.add_token_merges([merge if isinstance(merge, str) and " " in merge else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)


def _as_llama_cpp(name: str, tensor: Tensor, config: Any) -> NDArray[np.float32]:
    """llama.cpp turns neighbours (0, 1), (2, 3) … of a head where Hugging Face turns (0, d/2), (1, d/2 + 1)."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads:
        halves = tensor.view(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        tensor = halves.transpose(1, 2).reshape(tensor.shape)
    array: NDArray[np.float32] = tensor.to(torch.float32).numpy()
    return array


def _add(writer: GGUFWriter, name: str, array: NDArray[np.float32], precision: Precision) -> None:
    if array.ndim == 1 or precision == "F32":
        writer.add_tensor(name, array)
        return
    kind = GGMLQuantizationType[precision]
    writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)


PRECISIONS = get_args(Precision)
