"""From token ids back to text, one token at a time, and never half a character.

The cost of a token does not grow with the text before it. What comes out does not depend on how the tokens were cut
into runs. Control tokens (`<|end|>`) have no text; bytes at the end that are no whole character never come out.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELD_AT_MOST = 8
"""Tokens that the general way holds back for a character to become whole, before it takes them for broken."""


class Detokenizer(Protocol):
    """The text of one answer in the making."""

    pending: bool
    """Whether a character has begun that later tokens must complete."""

    def feed(self, token: int) -> str:
        """The text that has become certain with `token`."""


class Vocabulary:
    """What each token of `tokenizer` says. One for all answers: it remembers the bytes of the tokens it has met."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        flagged = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
        self._special = frozenset((*tokenizer.all_special_ids, *flagged))
        self._kind = _kind(tokenizer)
        self._bytes: dict[int, bytes] = {}

    def start(self) -> Detokenizer:
        """A new answer."""
        if self._kind is None:
            return WindowDetokenizer(self._tokenizer, self._special)
        return ByteDetokenizer(self)

    @property
    def spells_bytes(self) -> bool:
        """Whether an answer's text is its tokens' bytes, one after the other; else a token's text depends on others."""
        return self._kind is not None

    @property
    def strips(self) -> bool:
        """Whether the blank before an answer's first word belongs to the tokenizer and not to the text."""
        return self._kind == "metaspace-strip"

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for; none for a control token or one that does not exist."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._look_up(token)
        return known

    def _look_up(self, token: int) -> bytes:
        if token in self._special or not 0 <= token < len(self._tokenizer):
            return b""
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return b""
        return _of_byte_level(piece) if self._kind == "byte-level" else _of_metaspace(piece)


class ByteDetokenizer:
    """For vocabularies whose tokens are bytes: byte-level BPE, and SentencePiece with or without byte fallback."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip = vocabulary.strips
        self.pending = False

    def feed(self, token: int) -> str:
        """The text that has become certain with `token`."""
        data = self._vocabulary.bytes_of(token)
        if not data:
            return ""
        text = self._decoder.decode(data)
        self.pending = bool(self._decoder.getstate()[0])
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


class WindowDetokenizer:
    """For every other tokenizer: what a token adds to the decoding of the few before it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._before: list[int] = []
        self._held: list[int] = []
        self.pending = False

    def feed(self, token: int) -> str:
        """The text that has become certain with `token`."""
        if token in self._special:
            return ""
        self._held.append(token)
        known = self._decode(self._before)
        text = self._decode(self._before + self._held)
        whole = len(text) > len(known) and not text.endswith("\ufffd")
        self.pending = not whole and text.endswith("\ufffd") and len(self._held) < HELD_AT_MOST
        if not whole and len(self._held) < HELD_AT_MOST:
            return ""
        self._before, self._held = self._held, []
        return text[len(known) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False)) if tokens else ""


def _kind(tokenizer: Any) -> str | None:
    """How the pieces of `tokenizer` spell bytes: byte-level, metaspace, metaspace-strip; None: in some other way."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return None
    decoder: Mapping[str, Any] = json.loads(backend.decoder.__getstate__())
    steps = decoder.get("decoders", [decoder])
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return "byte-level"
    if kinds == ["Metaspace"]:
        return "metaspace" if steps[0].get("prepend_scheme") == "never" else "metaspace-strip"
    spaces = any(step["type"] == "Replace" and step["content"] == " " for step in steps)
    if spaces and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        return "metaspace-strip" if "Strip" in kinds else "metaspace"
    return None


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary (as GPT-2 chose them), the other way round."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET: Mapping[str, int] = _byte_alphabet()


def _of_byte_level(piece: str) -> bytes:
    try:
        return bytes(_ALPHABET[character] for character in piece)
    except KeyError:  # an added token: stands as it is
        return piece.encode()


def _of_metaspace(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes((int(piece[3:5], 16),))
    return piece.replace("▁", " ").encode()
