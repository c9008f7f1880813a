"""From text that comes in pieces to token ids that say exactly that text again, wherever it was cut.

For an engine whose server answers in text, while the pipeline carries ids. A piece that is one token's text becomes
that token, and servers send a piece for each token, so the ids are the model's own but for the few pieces that hold
several. It is the text that must come back to the last character; which tokens spell it matters to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelLoadError, PenstockError
from stages.detokenize import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Spelling:
    """The tokens of `tokenizer` by their bytes. One for all answers: a large vocabulary takes a second to look through.

    Raises:
        ModelLoadError: the text of its tokens depends on their neighbours, so that pieces cannot be encoded alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
        self._name = str(tokenizer.name_or_path)
        if not vocabulary.spells_bytes:
            why = "only the text of byte-level and SentencePiece tokenizers can be put together from a server's pieces"
            raise ModelLoadError(self._name, why)
        self._vocabulary = vocabulary
        self._encode = _encoder(tokenizer)
        self._ids = {data: token for token in range(len(tokenizer)) if (data := vocabulary.bytes_of(token))}
        self._longest = max(map(len, self._ids))
        self.strips = vocabulary.strips
        """Whether the blank before an answer's first word is the tokenizer's: what says the text must have one more."""

    def ids(self, data: bytes) -> tuple[int, ...]:
        """Tokens whose bytes are `data`, UTF-8 text: one, else as the tokenizer cuts it, else the longest that fit.

        Raises:
            PenstockError: the vocabulary has no token for some character of it.
        """
        if (whole := self._ids.get(data)) is not None:
            return (whole,)
        text = data.decode()
        for way in (text, text.removeprefix(" ")):  # SentencePiece puts a blank before what it encodes
            cut = self._encode(way)
            if b"".join(map(self._vocabulary.bytes_of, cut)) == data:
                return tuple(cut)
        return tuple(self._longest_first(data))

    def _longest_first(self, data: bytes) -> Iterator[int]:
        at = 0
        while at < len(data):
            ends = range(min(len(data), at + self._longest), at, -1)
            end = next((end for end in ends if data[at:end] in self._ids), None)
            if end is None:
                what = f"the server says {data[at:].decode(errors='replace')[:1]!r}"
                raise PenstockError(f"{what}, for which the tokenizer {self._name!r} has no token; is it the model's?")
            yield self._ids[data[at:end]]
            at = end


class Retokenizer:
    """The ids of one answer whose text comes in pieces; `begun`: a part of the text is known as tokens already."""

    def __init__(self, spelling: Spelling, *, begun: bool = False) -> None:
        self._spelling = spelling
        self._lead = b" " if spelling.strips and not begun else b""

    def feed(self, text: str) -> tuple[int, ...]:
        """The tokens of the next piece. All of a character's bytes are among them; half of a surrogate pair is broken.

        Raises:
            PenstockError: the vocabulary cannot spell it.
        """
        if not text:
            return ()
        whole = text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        data, self._lead = self._lead + whole.encode(), b""
        return self._spelling.ids(data)


def _encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """The ids of a text as the tokenizer cuts it; what it spells is looked at afterwards."""
    backend = tokenizer.backend_tokenizer  # those that spell bytes have one
    return lambda text: list(backend.encode(text, add_special_tokens=False).ids)
