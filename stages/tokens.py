"""Load a tokenizer, and say in plain words why it cannot be loaded. Shared by the stages; loads no weights.

The library's `AutoTokenizer` imports torch, 650 MB that a process without a model has no use for. So the commonest
kind, all of it in a tokenizer.json, is loaded without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that are what their tokenizer.json says, and nothing more."""
PLAIN_KINDS = ("gpt_neox", "granite", "llama", "mistral", "olmo2", "smollm3")
"""Kinds of models for which the library believes such a folder; for some others it takes a class of its own."""


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder `source`, or of the Hugging Face model of that name.

    Raises:
        ModelLoadError: there is none, or it is damaged.
    """
    folder = Path(source)
    local = folder.is_dir()
    if local and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelLoadError(
            str(source), "the folder has no tokenizer; put its tokenizer.json and tokenizer_config.json there"
        )
    try:
        tokenizer = _loader(folder).from_pretrained(str(source), local_files_only=local)
    except Exception as error:  # whatever the libraries that read it raise
        raise ModelLoadError(str(source), f"its tokenizer cannot be read, fetch it again: {brief(error)}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # some models ship with both switched on: a cut prompt would go unnoticed
        backend.no_truncation()
        backend.no_padding()
    result: PreTrainedTokenizerBase = tokenizer
    return result


def _loader(folder: Path) -> Any:
    """The class to load with: one that does without torch where it comes to the same."""
    if _is_plain(folder):
        from transformers.tokenization_utils_tokenizers import TokenizersBackend

        return TokenizersBackend
    from transformers import AutoTokenizer

    return AutoTokenizer


def _is_plain(folder: Path) -> bool:
    """Whether the tokenizer in `folder` is what its tokenizer.json says."""
    if not (folder / "tokenizer.json").is_file() or (folder / "tekken.json").is_file():
        return False
    try:
        words = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return words["tokenizer_class"] in PLAIN and "auto_map" not in words and model["model_type"] in PLAIN_KINDS
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # the library finds the words for it
        return False


def brief(error: BaseException, limit: int = 300) -> str:
    """The first lines of an error's message, or its name if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
