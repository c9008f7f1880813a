"""A tokenizer is loaded without torch where that comes to the same, and the same way as ever elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipeline.errors import ModelLoadError
from stages import tokens
from stages.tokens import PLAIN_KINDS, load_tokenizer
from tests.stages import models

TEXT = "The tent, please: größer! 👩‍👩‍👧 <|end|>"
WORKER = """
import asyncio, sys
from apps.parts import loaded
from apps.settings import ModelSettings, StageSettings
import apps.worker

async def main():
    async with loaded(ModelSettings(name=sys.argv[1]), with_engine=False) as parts:
        for name in ("text", "postprocess"):
            parts.stage(name, StageSettings())
        print(parts.context, len(parts.tokenizer.encode("hello")), "torch" in sys.modules)

asyncio.run(main())
"""


def folder_of(folder: Path, kind: str, **words: object) -> Path:
    """A folder with a tokenizer of a model of that kind, as far as its small files say."""
    models.byte_level().save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **words}))
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "max_position_embeddings": 77}))
    return folder


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_it_is_the_same_without_the_long_way(kind: str, name: str, tmp_path: Path) -> None:
    """For each kind that takes the short way: the same class, ids, template and control tokens as by the long one."""
    folder = folder_of(tmp_path, kind, tokenizer_class=name)
    assert tokens._is_plain(folder)

    short, long = load_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)

    assert type(short) is type(long)
    assert short.encode(TEXT) == long.encode(TEXT)
    assert short.chat_template == long.chat_template
    assert short.all_special_ids == long.all_special_ids
    assert short.get_vocab() == long.get_vocab()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("qwen2", {}), ("llama", {"tokenizer_class": "LlamaTokenizer"}), ("llama", {"auto_map": {}})],
    ids=["kind", "class", "code"],
)
def test_what_is_unusual_takes_the_long_way(kind: str, words: dict[str, object], tmp_path: Path) -> None:
    """A kind of model or a class that the library treats in its own way is left to the library."""
    assert not tokens._is_plain(folder_of(tmp_path, kind, **words))


@pytest.mark.slow
def test_a_worker_without_a_model_has_no_torch(tmp_path: Path) -> None:
    """A process of the text and postprocess stages loads neither torch nor its 650 MB."""
    folder = folder_of(tmp_path, "llama")
    ran = subprocess.run(
        [sys.executable, "-c", WORKER, str(folder)], capture_output=True, text=True, timeout=50, check=True
    )
    context, length, torch = ran.stdout.split()

    assert (context, torch) == ("77", "False")
    assert int(length) > 0


def test_a_damaged_file_has_the_same_words_either_way(tmp_path: Path) -> None:
    """What cannot be read is a refusal, by the short way too."""
    folder = folder_of(tmp_path, "llama")
    (folder / "tokenizer.json").write_text('{"model": {}, "added_tokens": []}')

    with pytest.raises(ModelLoadError, match="its tokenizer cannot be read, fetch it again"):
        load_tokenizer(folder)
