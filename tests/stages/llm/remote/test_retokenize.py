"""Text in pieces becomes token ids that say it again, to the last character, wherever it was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from pipeline.errors import ModelLoadError, PenstockError
from stages.detokenize import Vocabulary
from stages.llm.remote.retokenize import Retokenizer, Spelling
from tests.stages import models

TOKENIZERS = {
    "byte-level": models.byte_level(),
    "sentencepiece": models.sentencepiece(),
    "metaspace-first": models.metaspace("first"),
    "metaspace-never": models.metaspace("never"),
}
VOCABULARIES = {kind: Vocabulary(tokenizer) for kind, tokenizer in TOKENIZERS.items()}
SPELLINGS = {kind: Spelling(tokenizer, VOCABULARIES[kind]) for kind, tokenizer in TOKENIZERS.items()}
KIND = st.sampled_from(sorted(TOKENIZERS))
TEXT = st.one_of(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from(models.CORPUS))


def said(kind: str, ids: list[int]) -> str:
    """What a client is told of these tokens."""
    detokenizer = VOCABULARIES[kind].start()
    return "".join(detokenizer.feed(token) for token in ids)


@given(kind=KIND, text=TEXT, data=st.data())
def test_the_text_comes_back_whatever_the_cut(kind: str, text: str, data: st.DataObject) -> None:
    """Cut anywhere, also inside words and next to blanks, and taken over anywhere, the text is the text."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    handed_over = data.draw(st.integers(0, len(cuts) + 1))
    retokenizer = Retokenizer(SPELLINGS[kind])
    ids: list[int] = []
    for number, (start, end) in enumerate(pairwise([0, *cuts, len(text)])):
        if number == handed_over:
            retokenizer = Retokenizer(SPELLINGS[kind], begun=bool(said(kind, ids)))
        ids += retokenizer.feed(text[start:end])

    assert said(kind, ids) == text


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_piece_of_one_token_is_that_token(kind: str) -> None:
    """Where a server sends a piece for each token, the ids are the model's own."""
    tokenizer: PreTrainedTokenizerBase = TOKENIZERS[kind]
    ids = list(tokenizer.encode("The order will be delivered on Monday.", add_special_tokens=False))
    detokenizer = VOCABULARIES[kind].start()
    retokenizer = Retokenizer(SPELLINGS[kind])

    assert [token for one in ids for token in retokenizer.feed(detokenizer.feed(one))] == ids


def test_a_piece_of_several_tokens_is_cut_as_the_tokenizer_cuts_it() -> None:
    """Not the longest first: what the model itself would most likely have said."""
    text = " delivered on Monday"
    ids = tuple(TOKENIZERS["byte-level"].encode(text, add_special_tokens=False))

    assert len(ids) > 1
    assert Retokenizer(SPELLINGS["byte-level"]).feed(text) == ids


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_what_looks_like_a_control_token_is_text(kind: str) -> None:
    """A server that spells an end token out has said those characters: none is lost, and nothing ends."""
    ids = list(Retokenizer(SPELLINGS[kind]).feed("the <|end|> of it"))

    assert models.END not in ids
    assert said(kind, ids) == "the <|end|> of it"


def test_half_a_surrogate_pair_is_broken_and_nothing_else() -> None:
    """JSON can carry what is no text."""
    ids = list(Retokenizer(SPELLINGS["byte-level"]).feed("a\ud83db"))

    assert said("byte-level", ids) == "a\ufffdb"


def test_a_character_that_the_vocabulary_lacks_is_named() -> None:
    """Without bytes to fall back on, what another model's server says cannot be spelt."""
    tokenizer = models.metaspace("never", fallback=False)
    spelling = Spelling(tokenizer, Vocabulary(tokenizer))

    with pytest.raises(PenstockError, match="你"):
        Retokenizer(spelling).feed("Hello 你")


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    """Where a token's text depends on its neighbours, that is said at load."""
    tokenizer = models.word_piece()

    with pytest.raises(ModelLoadError, match="byte-level and SentencePiece"):
        Spelling(tokenizer, Vocabulary(tokenizer))
