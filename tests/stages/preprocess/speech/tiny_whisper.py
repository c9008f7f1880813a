"""Whispers with random weights: the layouts of OpenAI's models, English and multilingual, at a fraction of the size."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from ctranslate2.converters import TransformersConverter
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.tokenization_whisper import LANGUAGES as LANGUAGE_NAMES

TEXT = 50_256
"""Tokens of text; behind them a multilingual model has an empty one, by which CTranslate2 knows it."""
TIMESTAMPS = 1501
WIDTH = 16
SURE, POSITION, ATTENTION = 200.0, 0.1, 0.6
LANGUAGES = list(LANGUAGE_NAMES)[:99]
SPECIALS = [
    *("<|endoftext|>", "<|startoftranscript|>"),
    *(f"<|{code}|>" for code in LANGUAGES),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
]


def make(folder: Path, *, multilingual: bool = False) -> None:
    """Write the model into `folder` as faster-whisper loads it; a `multilingual` one is sure of what it writes."""
    torch.manual_seed(3)
    eot = TEXT + multilingual
    config = WhisperConfig(
        vocab_size=eot + len(SPECIALS) + TIMESTAMPS,
        num_mel_bins=80,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        bos_token_id=eot,
        eos_token_id=eot,
        pad_token_id=eot,
        decoder_start_token_id=eot + 1,
    )
    model = WhisperForConditionalGeneration(config)
    if multilingual:
        _teach_to_be_sure(model.model.decoder)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        PreTrainedTokenizerFast(tokenizer_object=_tokenizer(multilingual=multilingual)).save_pretrained(temporary)
        TransformersConverter(temporary, copy_files=["tokenizer.json"]).convert(str(folder), force=True)
    languages = list(range(eot + 2, eot + 2 + len(LANGUAGES))) if multilingual else []
    known = {"alignment_heads": [[1, 0]], "lang_ids": languages}
    (folder / "config.json").write_text(json.dumps({**known, "suppress_ids": [], "suppress_ids_begin": []}))


def _teach_to_be_sure(decoder: torch.nn.Module) -> None:
    """Let what it writes depend on where it is, on the language and on the sound, and on nothing by chance."""
    for name, weights in decoder.named_parameters():
        if "attn" in name and weights.dim() == 2:
            torch.nn.init.normal_(weights, std=ATTENTION)
        elif "embed_positions" in name:
            torch.nn.init.normal_(weights, std=POSITION)
        elif name == "layer_norm.weight":
            torch.nn.init.constant_(weights, SURE)


def _tokenizer(*, multilingual: bool) -> Tokenizer:
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{n}" for n in range(TEXT - len(signs))]
    vocabulary = {sign: n for n, sign in enumerate([*signs, *words, *[""] * multilingual, *SPECIALS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(sign, special=True, normalized=False) for sign in SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
