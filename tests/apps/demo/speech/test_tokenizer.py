"""The ear's tokenizer, as the training and as faster-whisper use it."""

from pathlib import Path

import pytest
from faster_whisper.tokenizer import Tokenizer as Whispers
from tokenizers import Tokenizer

from apps.demo.speech import tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Whispers:
    """The saved file, in faster-whisper's hands."""
    tokenizer.save(tmp_path)
    return Whispers(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), multilingual=False)


@pytest.mark.parametrize("text", ["what's the price", "where is my order 84410", "size 42", "zyzzy is unknown"])
def test_text_survives(saved: Whispers, text: str) -> None:
    """The training's ids are the file's, and come back as the text; unknown words are spelled."""
    ids = [token for word in text.split() for token in tokenizer.word_ids(word)]

    assert saved.encode(f" {text}") == ids
    assert saved.decode(ids) == f" {text}"


def test_a_number_is_one_word(saved: Whispers) -> None:
    """The digits of a number stay together, or its times would be those of one digit."""
    words, _ = saved.split_to_word_tokens([*saved.encode(" order 84410 please"), saved.eot])

    assert words[:3] == [" order", " 84410", " please"]


def test_layout(saved: Whispers) -> None:
    """Text stands below the specials, and the timestamps begin right after the last of them."""
    assert saved.sot_sequence == [tokenizer.special("startoftranscript")]
    assert max(saved.encode(" what do you sell 7")) < saved.eot
    assert tokenizer.timestamp(0) == saved.timestamp_begin
    assert tokenizer.timestamp(30) == tokenizer.size() - 1
    assert saved.non_speech_tokens


def test_an_empty_prompt_is_none(saved: Whispers) -> None:
    """Programs that prompt with "" have faster-whisper encode a blank; it is no token."""
    assert saved.encode(" ") == []
    assert saved.encode(" hello ") != []
