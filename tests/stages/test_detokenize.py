"""Token ids become the text the tokenizer would make of them, piece by piece and never half a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from stages.detokenize import HELD_AT_MOST, Vocabulary
from tests.stages import models

BYTE_LEVEL, SENTENCEPIECE, WORD_PIECE = models.byte_level(), models.sentencepiece(), models.word_piece()
ANY = st.sampled_from([BYTE_LEVEL, SENTENCEPIECE])
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of `text`, without control tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """What each of `ids` lets out."""
    detokenizer = Vocabulary(tokenizer).start()
    return [detokenizer.feed(token) for token in ids]


@given(tokenizer=ANY, text=TEXT)
def test_text_comes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Any text, encoded, comes back to the last character, and no piece holds a replacement character."""
    pieces = pieces_of(tokenizer, ids_of(tokenizer, text))

    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@given(ids=st.lists(st.integers(0, 600), max_size=30))
def test_any_tokens_say_what_the_library_says(ids: list[int]) -> None:
    """Also what no text encodes to is told as the library tells it, but for an unfinished character at the end."""
    ids = [token for token in ids if token < len(BYTE_LEVEL)]

    whole = str(BYTE_LEVEL.decode(ids, skip_special_tokens=True))

    assert "".join(pieces_of(BYTE_LEVEL, ids)).rstrip("\ufffd") == whole.rstrip("\ufffd")


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "你好,世界", "naïve café", "a\n\n  b\t"])
@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE], ids=["byte-level", "sentencepiece"])
def test_characters_of_many_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """A character comes out with the last of its tokens, and `pending` says that one has begun."""
    detokenizer = Vocabulary(tokenizer).start()
    told = ""
    for token in ids_of(tokenizer, text):
        told += detokenizer.feed(token)
        assert text.startswith(told)

    assert told == text
    assert not detokenizer.pending


def test_other_tokenizers_take_the_general_way() -> None:
    """A tokenizer of another kind gives what the library gives for the whole."""
    ids = ids_of(WORD_PIECE, "Hello there, how are you today?")

    assert "".join(pieces_of(WORD_PIECE, ids)) == WORD_PIECE.decode(ids)


def test_broken_bytes_are_not_held_for_ever() -> None:
    """Bytes that never become a character are told as broken, soon."""
    lone = BYTE_LEVEL.get_vocab()["Ģ"]  # how the vocabulary spells the byte 0x80

    assert "\ufffd" in "".join(pieces_of(BYTE_LEVEL, [lone] * HELD_AT_MOST))


def test_control_tokens_and_unknown_ids_say_nothing() -> None:
    """Control tokens have no text, and neither have ids beyond the vocabulary."""
    assert pieces_of(BYTE_LEVEL, [models.END, models.USER, 100_000]) == ["", "", ""]
