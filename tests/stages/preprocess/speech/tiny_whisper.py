"""A Whisper with random weights: the layout of OpenAI's English models at a fraction of their size."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from ctranslate2.converters import TransformersConverter
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

TEXT = 50_257
VOCABULARY = 51_864
WIDTH = 16
SPECIALS = [
    *("<|endoftext|>", "<|startoftranscript|>"),
    *(f"<|{code}|>" for code in _LANGUAGE_CODES[:98]),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
]


def make(folder: Path) -> None:
    """Write the model into `folder` as faster-whisper loads it."""
    torch.manual_seed(3)
    eot = TEXT
    config = WhisperConfig(
        vocab_size=VOCABULARY,
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
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        PreTrainedTokenizerFast(tokenizer_object=_tokenizer()).save_pretrained(temporary)
        TransformersConverter(temporary, copy_files=["tokenizer.json"]).convert(str(folder), force=True)
    known = {"alignment_heads": [[1, 0]], "lang_ids": []}
    (folder / "config.json").write_text(json.dumps({**known, "suppress_ids": [], "suppress_ids_begin": []}))


def _tokenizer() -> Tokenizer:
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{n}" for n in range(TEXT - len(signs))]
    vocabulary = {sign: n for n, sign in enumerate([*signs, *words, *SPECIALS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(sign, special=True, normalized=False) for sign in SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
