"""Load a tokenizer, and say in plain words why it cannot be loaded. Shared by the stages; loads no weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder `source`, or of the Hugging Face model of that name.

    Raises:
        ModelLoadError: there is none, or it is damaged.
    """
    from transformers import AutoTokenizer

    folder = Path(source)
    local = folder.is_dir()
    if local and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelLoadError(
            str(source), "the folder has no tokenizer; put its tokenizer.json and tokenizer_config.json there"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=local)
    except Exception as error:
        raise ModelLoadError(str(source), f"its tokenizer cannot be read, fetch it again: {brief(error)}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # some models ship with both switched on: a cut prompt would go unnoticed
        backend.no_truncation()
        backend.no_padding()
    result: PreTrainedTokenizerBase = tokenizer
    return result


def brief(error: BaseException, limit: int = 300) -> str:
    """The first lines of an error's message, or its name if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
