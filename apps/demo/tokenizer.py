"""The tokenizer: byte-level BPE whose vocabulary is whole words, and single bytes for all others.

No merges: a word of the vocabulary is one token (`ignore_merges`), any other is spelled. So every
unknown name is copied letter by letter, by one rule, which a small model learns; with merges it
must learn the copying of each piece. Digits stand alone. Any Unicode text is representable.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TypedDict

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

PAD, BOS, SYSTEM, USER, ASSISTANT, END = range(6)
SPECIALS = ("<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
PIECE = r" ?[A-Za-z]+(?:'[A-Za-z]+)?|[\s\S]"
SIZE = 3072
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|> {{ message['content'] | trim }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] | trim }}"
    "{% else %}<|system|> {{ message['content'] | trim }}{% endif %}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


@cache
def byte_signs() -> tuple[str, ...]:
    """The sign that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in signs)
    signs |= {byte: chr(256 + at) for at, byte in enumerate(others)}
    return tuple(signs[byte] for byte in range(256))


def spelled(piece: str) -> str:
    """`piece` in the vocabulary's signs."""
    signs = byte_signs()
    return "".join(signs[byte] for byte in piece.encode())


def vocabulary(texts: Iterable[str], unwanted: frozenset[str]) -> dict[str, int]:
    """Specials, bytes, then the most frequent words of `texts`, except the `unwanted` ones (names)."""
    counts = Counter(found for text in texts for found in re.findall(PIECE, text))
    words = [word for word, _ in counts.most_common() if len(word.strip()) > 1 and word.strip() not in unwanted]
    return {sign: at for at, sign in enumerate([*SPECIALS, *byte_signs(), *map(spelled, words)][:SIZE])}


def save(vocab: dict[str, int], folder: Path) -> None:
    """Write what `AutoTokenizer.from_pretrained(folder)` reads."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(sign, special=True, normalized=False) for sign in SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECE), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False, "model_max_length": 1024, "padding_side": "left",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)


class Encoder:
    """The same tokenizer for training: it can also spell known words, so that their spelling is learnt."""

    def __init__(self, vocab: dict[str, int]) -> None:
        self.vocab = vocab
        self._cache: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Read the vocabulary from a saved tokenizer."""
        return cls(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])

    def piece(self, piece: str) -> tuple[int, ...]:
        """The ids of one piece of `PIECE`."""
        if (known := self._cache.get(piece)) is None:
            signs = spelled(piece)
            whole = self.vocab.get(signs)
            known = (whole,) if whole is not None else tuple(self.vocab[sign] for sign in signs)
            if len(self._cache) < 100_000:
                self._cache[piece] = known
        return known

    def encode(self, text: str, rng: random.Random | None = None, spell: float = 0.0) -> list[int]:
        """The ids of `text`; with `rng`, a share `spell` of its words is spelled."""
        ids: list[int] = []
        for piece in re.findall(PIECE, text):
            if rng and rng.random() < spell:
                ids += (self.vocab[sign] for sign in spelled(piece))
            else:
                ids += self.piece(piece)
        return ids

    def chat(
        self, messages: Sequence[Message], rng: random.Random | None = None, spell: float = 0.0
    ) -> tuple[list[int], list[bool]]:
        """The ids of a whole chat, and which of them are the assistant's to say."""
        ids, spoken = [BOS], [False]
        for message in messages:
            mine = message["role"] == "assistant"
            role = ASSISTANT if mine else USER if message["role"] == "user" else SYSTEM
            content = message["content"].strip()
            body = self.encode(content) if mine else self.encode(" " + content, rng, spell)
            ids += [role, *body, END]
            spoken += [False] + [mine] * (len(body) + 1)
        return ids, spoken
