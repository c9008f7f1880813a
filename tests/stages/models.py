"""Tokenizers and tiny random models, made on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TALKATIVE = 15
"""A seed with which random models seldom end an answer soon."""

SPECIALS = ["<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]
BOS, SYSTEM, USER, ASSISTANT, END, PAD = range(6)
TEMPLATE = (
    "<|bos|>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>"
    "{% else %}<|{{ m.role }}|> {{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "Hello there, how are you today? I would like to buy a tent for two.",
    "The order 48213 will be delivered on Monday, 7 March, before 12 o'clock.",
    "Größe und Gewicht stehen auf der Seite. 你好,请问帐篷多少钱? 👩‍👩‍👧 😀 👍🏽",
    "def add(a, b):\n\treturn a + b\n",
] * 20


def byte_level(size: int = 512) -> PreTrainedTokenizerBase:
    """A byte-level BPE with a chat template, like GPT-2's, Llama 3's and Qwen's."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False),
    )
    return _wrapped(raw)


def sentencepiece(size: int = 600) -> PreTrainedTokenizerBase:
    """A BPE with byte fallback whose words begin with ▁, like Llama 2's."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*SPECIALS, "<unk>", *pieces], show_progress=False)
    raw.train_from_iterator([text.replace(" ", "▁") for text in CORPUS[:2]], trainer)
    unflagged = Tokenizer.from_str(_without_added(raw.to_str(), keep=len(SPECIALS) + 1))
    return _wrapped(unflagged)


def metaspace(scheme: str, *, fallback: bool = True) -> PreTrainedTokenizerBase:
    """A BPE that puts ▁ before the first word of a text or before none, like newer SentencePiece conversions."""
    raw = Tokenizer(models.BPE(byte_fallback=fallback, unk_token="<unk>", fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if scheme != "never" else steps)
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIALS, "<unk>", *pieces], show_progress=False)
    raw.train_from_iterator(CORPUS[:2], trainer)
    return _wrapped(Tokenizer.from_str(_without_added(raw.to_str(), keep=len(SPECIALS) + 1)))


def word_piece() -> PreTrainedTokenizerBase:
    """A WordPiece, whose decoder puts blanks between words: neither bytes nor ▁."""
    raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=[*SPECIALS, "<unk>"], show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    return _wrapped(raw)


def _without_added(serialised: str, *, keep: int) -> str:
    """The byte pieces are ordinary pieces, not added tokens: the trainer marks them because they were given by name."""
    import json

    state = json.loads(serialised)
    state["added_tokens"] = state["added_tokens"][:keep]
    return json.dumps(state)


def _wrapped(raw: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=[AddedToken(name, special=True) for name in SPECIALS[1:4]],
        chat_template=TEMPLATE,
    )


_SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": BOS,
    "eos_token_id": END,
    "pad_token_id": PAD,
    # Large enough that a random model's first choice is clear: rounding must not decide.
    "initializer_range": 0.3,
}


def llama(**changes: Any) -> PreTrainedModel:
    """Grouped queries, tied embeddings."""
    return LlamaForCausalLM(LlamaConfig(**{**_SHAPE, "tie_word_embeddings": True, **changes}))


def mistral(**changes: Any) -> PreTrainedModel:
    """Sees only the last 24 tokens in each layer."""
    return MistralForCausalLM(MistralConfig(**{**_SHAPE, "sliding_window": 24, **changes}))


def qwen2(**changes: Any) -> PreTrainedModel:
    """With biases, one KV head for each query head."""
    return Qwen2ForCausalLM(Qwen2Config(**{**_SHAPE, "num_key_value_heads": 4, **changes}))


def qwen3(**changes: Any) -> PreTrainedModel:
    """With norms of queries and keys, one KV head for all."""
    return Qwen3ForCausalLM(Qwen3Config(**{**_SHAPE, "num_key_value_heads": 1, **changes}))


def gpt2(**changes: Any) -> PreTrainedModel:
    """Learned positions."""
    shape = {"vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.3}
    ends = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD}
    return GPT2LMHeadModel(GPT2Config(**{**shape, **ends, **changes}))


def gpt_neox(**changes: Any) -> PreTrainedModel:
    """A quarter of each head turned, attention and the rest beside each other."""
    return GPTNeoXForCausalLM(GPTNeoXConfig(**{**_without("num_key_value_heads"), **changes}))


def opt(**changes: Any) -> PreTrainedModel:
    """Learned positions that begin at 2."""
    shape = {"ffn_dim": 96, "word_embed_proj_dim": 64, "init_std": 0.3}
    return OPTForCausalLM(
        OPTConfig(**{**_without("num_key_value_heads", "intermediate_size", "initializer_range"), **shape, **changes})
    )


def phi(**changes: Any) -> PreTrainedModel:
    """Half of each head turned, biases everywhere."""
    return PhiForCausalLM(PhiConfig(**{**_SHAPE, "partial_rotary_factor": 0.5, **changes}))


def phi3(**changes: Any) -> PreTrainedModel:
    """Queries, keys and values from one matrix, seeing the last 24 tokens."""
    return Phi3ForCausalLM(Phi3Config(**{**_SHAPE, "sliding_window": 24, **changes}))


def gemma(**changes: Any) -> PreTrainedModel:
    """Embeddings scaled, tied, one KV head for all."""
    return GemmaForCausalLM(GemmaConfig(**{**_SHAPE, "num_key_value_heads": 1, **changes}))


def gemma2(**changes: Any) -> PreTrainedModel:
    """Scores and logits capped, queries scaled otherwise, every second layer seeing the last 24 tokens."""
    shape = {"sliding_window": 24, "query_pre_attn_scalar": 30, "attn_logit_softcapping": 3.0}
    return Gemma2ForCausalLM(Gemma2Config(**{**_SHAPE, **shape, "tie_word_embeddings": False, **changes}))


def gemma3(**changes: Any) -> PreTrainedModel:
    """Two layers that see the last 24 tokens and one that sees all, with angles of their own, norms of queries."""
    shape = {"sliding_window": 24, "num_hidden_layers": 3, "tie_word_embeddings": False}
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**_SHAPE, **shape, "layer_types": kinds, **changes}))


def granite(**changes: Any) -> PreTrainedModel:
    """Embeddings, scores, layers and logits each multiplied by something."""
    factors = {"attention_multiplier": 0.1, "residual_multiplier": 0.6, "embedding_multiplier": 3.0}
    return GraniteForCausalLM(GraniteConfig(**{**_SHAPE, **factors, "logits_scaling": 0.5, **changes}))


def _without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in _SHAPE.items() if name not in names}


MAKERS = {"llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "gpt2": gpt2}
OTHERS = {
    "gpt_neox": gpt_neox,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "granite": granite,
}


def save(folder: Path, kind: str = "llama", *, seed: int = TALKATIVE, **changes: Any) -> Path:
    """A tiny random model of that kind with a tokenizer, in `folder`."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = {**MAKERS, **OTHERS}[kind](**changes)
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder
