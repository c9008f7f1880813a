"""The small files beside a model's weights, looked at before a library reads them: its words for damage help nobody.

They are needed wherever a tokenizer is, also without weights. Imports no torch (650 MB), but for what is unusual.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelLoadError
from stages.tokens import brief

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG = "config.json"
FILES = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
NEEDED = {"tokenizer.json": ("model", "added_tokens")}
POINTER = b"version https://git-lfs"


def local(source: str) -> Path | None:
    """The folder `source`, or None where that is a Hugging Face name.

    Raises:
        ModelLoadError: it can be nothing but a folder, and there is none.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.startswith(".") or source.count("/") > 1:
        raise ModelLoadError(source, "there is no such folder")
    return None


def check_configs(source: str, folder: Path) -> None:
    """See that the small files in `folder` are whole.

    Raises:
        ModelLoadError: names the file that is missing or damaged, and what to do.
    """
    if not (folder / CONFIG).is_file():
        raise ModelLoadError(source, f"{CONFIG} is missing; is this the folder of a Hugging Face model?")
    for file in (folder / name for name in FILES):
        if file.is_file():
            content = table(source, file)
            if lacking := [name for name in NEEDED.get(file.name, ()) if name not in content]:
                raise ModelLoadError(source, damaged(file, f"lacks {lacking[0]!r}"))


def positions_of(source: str) -> int | None:
    """How many positions the model `source` (a folder or a Hugging Face name) has, or None where nothing tells.

    Raises:
        ModelLoadError: its configuration cannot be read.
    """
    file = Path(source) / CONFIG
    config: Any = table(source, file) if file.is_file() else {}
    if "max_position_embeddings" not in config:  # under another name, or the library's default for its kind
        config = config_of(source, source).get_text_config()
    return positions(config)


def positions(config: Any) -> int | None:
    """How many positions a model of that configuration has (its JSON or the library's object), if that is known.

    With "longrope" only those before all angles change: they change for a whole batch, with its longest sequence.
    """
    most = _field(config, "max_position_embeddings")
    rope = _field(config, "rope_parameters") or _field(config, "rope_scaling") or {}
    if isinstance(rope, Mapping) and (rope.get("rope_type") or rope.get("type")) == "longrope":
        first = rope.get("original_max_position_embeddings") or _field(config, "original_max_position_embeddings")
        most = first if isinstance(first, int) and isinstance(most, int) and first < most else most
    return most if isinstance(most, int) else None


def _field(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def config_of(source: str, folder: str | Path) -> PreTrainedConfig:
    """The configuration of the model in `folder`, or of the Hugging Face model of that name.

    Raises:
        ModelLoadError: it cannot be read, or is of no model that the library knows.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=Path(folder).is_dir())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ModelLoadError(source, f"its {CONFIG} is of no use: {brief(error)}") from error
    return config


def table(source: str, file: Path) -> Mapping[str, Any]:
    """The JSON object in `file`.

    Raises:
        ModelLoadError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(source, f"{file.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(source, damaged(file, f"is damaged ({brief(error)})")) from error
    if not isinstance(content, dict):
        raise ModelLoadError(source, damaged(file, "is damaged (no JSON object)"))
    return content


def damaged(file: Path, what: str) -> str:
    """What is wrong with `file`, and the cure."""
    with file.open("rb") as data:
        if data.read(len(POINTER)) == POINTER:
            return f"{file.name} is only Git LFS's pointer to the file; run `git lfs pull` in its folder"
    return f"{file.name} {what}; fetch the file again"
