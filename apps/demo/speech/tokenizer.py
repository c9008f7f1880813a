"""The ear's tokenizer: one token for each word, letters for all others, and Whisper's special tokens.

The layout is what faster-whisper expects of an English-only model: text below `<|endoftext|>`, then the
specials, `<|notimestamps|>` the last of them, then 1,501 timestamps of 20 ms (not in the file).
"""

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from apps.demo.speech.texts import words
from apps.demo.tokenizer import byte_signs, spelled

PIECE = r" ?[a-z]+(?:'[a-z]+)?| ?[0-9]|[\s\S]"
SPECIALS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
TIMESTAMPS = 1501
TIMESTAMP_S = 0.02


@cache
def vocabulary() -> dict[str, int]:
    """Bytes, digits, words and specials, in this order."""
    known = [f" {digit}" for digit in range(10)] + [f" {word}" for word in words()]
    return {sign: at for at, sign in enumerate([*byte_signs(), *map(spelled, known), *SPECIALS])}


def special(name: str) -> int:
    """The id of `<|name|>`."""
    return vocabulary()[f"<|{name}|>"]


def timestamp(seconds: float) -> int:
    """The id of the timestamp nearest to `seconds`."""
    return special("notimestamps") + 1 + round(seconds / TIMESTAMP_S)


def size() -> int:
    """How many ids there are, timestamps included."""
    return len(vocabulary()) + TIMESTAMPS


def word_ids(word: str) -> list[int]:
    """The ids of one word with the blank before it; a number is told digit by digit."""
    whole = vocabulary().get(spelled(f" {word}"))
    if whole is not None:
        return [whole]
    if word.isdigit():
        return [vocabulary()[spelled(f" {word[0]}")], *(vocabulary()[digit] for digit in word[1:])]
    return [vocabulary()[sign] for sign in spelled(f" {word}")]


def save(folder: Path) -> None:
    """Write `tokenizer.json` and what transformers wants beside it."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(), merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(sign, special=True, normalized=False) for sign in SPECIALS])
    tokenizer.normalizer = normalizers.Replace(Regex(r"^\s+$"), "")  # an empty prompt, which comes as a blank, is none
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECE), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
