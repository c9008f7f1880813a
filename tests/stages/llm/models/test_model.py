"""A model loads, or the error names what is wrong with it and what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, GPTNeoConfig, GPTNeoForCausalLM, T5Config, T5ForConditionalGeneration

from pipeline.errors import ModelLoadError
from stages.llm.models.model import load_model
from tests.stages import models

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return models.save(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def cut_off(folder: Path) -> None:
    """As an interrupted download leaves it."""
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def header_cut_off(folder: Path) -> None:
    """As a download interrupted early leaves it."""
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])


def empty(folder: Path) -> None:
    """As a full disk leaves it."""
    (folder / WEIGHTS).write_bytes(b"")


def lfs_pointer(folder: Path) -> None:
    """As git without LFS leaves it."""
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")


def no_weights(folder: Path) -> None:
    """Without weights."""
    (folder / WEIGHTS).unlink()


def no_config(folder: Path) -> None:
    """Without a configuration."""
    (folder / "config.json").unlink()


def no_tokenizer(folder: Path) -> None:
    """Without a tokenizer."""
    (folder / "tokenizer.json").unlink()


def broken_tokenizer(folder: Path) -> None:
    """With a damaged tokenizer."""
    (folder / "tokenizer.json").write_text("{")


def lost_shard(folder: Path) -> None:
    """With an index that lists a file that is not there."""
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1-of-2.safetensors"}}))


def lost_weight(folder: Path) -> None:
    """With one matrix missing, which the library would make up."""
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def wrong_shape(folder: Path) -> None:
    """With weights that do not belong to the configuration."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))


def not_numbers(folder: Path) -> None:
    """With weights that are no numbers."""
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    """With a tokenizer that knows more tokens than the model."""
    tokenizer = models.byte_level()
    tokenizer.add_tokens([f"extra {number}" for number in range(300)])
    tokenizer.save_pretrained(folder)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (cut_off, r"model\.safetensors has \d+ bytes and should have \d+; fetch the file again"),
    (header_cut_off, r"model\.safetensors is damaged or cut off \(100 bytes\)"),
    (empty, r"model\.safetensors is damaged or cut off \(0 bytes\)"),
    (lfs_pointer, r"model\.safetensors is only Git LFS's pointer to the file; run `git lfs pull`"),
    (no_weights, r"model\.safetensors is missing"),
    (no_config, r"config\.json is missing"),
    (no_tokenizer, r"no tokenizer; put its tokenizer\.json"),
    (broken_tokenizer, r"tokenizer\.json is damaged \(Expecting .*\); fetch the file again"),
    (lost_shard, r"model-1-of-2\.safetensors is missing"),
    (lost_weight, r"lack 1 of the model's weights \(model\.layers\.1\.mlp\.up_proj\.weight"),
    (wrong_shape, r"\w+\.weight has the shape \[\d+.* in the files and \[\d+.* by its config\.json"),
    (not_numbers, r"not finite numbers"),
    (other_tokenizer, r"its tokenizer has \d+ tokens and its weights only 512"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
@pytest.mark.filterwarnings("ignore")  # the library may complain in its own way as well
def test_damage_is_named(damage: Callable[[Path], None], words: str, folder: Path) -> None:
    """A damaged model is refused, and the error names the file or the weight."""
    damage(folder)

    with pytest.raises(ModelLoadError, match=words) as refusal:
        load_model(folder, device="cpu")
    assert refusal.value.source == str(folder)


def test_folder_that_is_not_there() -> None:
    """A path without a folder is never taken for a name on the network."""
    with pytest.raises(ModelLoadError, match="no such folder"):
        load_model("./nowhere/at/all")


@pytest.mark.filterwarnings("ignore")
def test_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """An encoder with a decoder, and a model with an attention of its own, are refused by name."""
    shape: dict[str, Any] = {"vocab_size": 512, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8}
    neo: dict[str, Any] = {"vocab_size": 512, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    neo["attention_types"] = [[["local"], 1]]
    bert: dict[str, Any] = {"vocab_size": 512, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for network, words in [
        (T5ForConditionalGeneration(T5Config(**shape)), "t5 is no causal language model"),
        (GPTNeoForCausalLM(GPTNeoConfig(**neo)), "models of type gpt_neo"),
        (BertModel(BertConfig(**bert, intermediate_size=16)), "lack|bert"),
    ]:
        network.save_pretrained(tmp_path)
        models.byte_level().save_pretrained(tmp_path)
        with pytest.raises(ModelLoadError, match=words):
            load_model(tmp_path, device="cpu")


def test_progress_is_told(original: Path) -> None:
    """Loading tells what it does, and how much of the weights it has."""
    told: list[tuple[str, float | None]] = []

    load_model(original, device="cpu", progress=lambda what, share: told.append((what, share)))

    assert [what for n, (what, _) in enumerate(told) if n == 0 or told[n - 1][0] != what] == [
        "looking at the files",
        "loading the weights",
        "trying it out",
        "ready",
    ]
    assert told[-1][1] == 1.0


def test_fingerprint_tells_weights_apart(original: Path, folder: Path) -> None:
    """The same weights have the same fingerprint in any folder; others, or another precision, have not."""
    same = load_model(folder, device="cpu").fingerprint
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    one = load_model(original, device="cpu").fingerprint
    assert same == one
    assert load_model(folder, device="cpu").fingerprint != one
    assert load_model(original, device="cpu", dtype="bfloat16").fingerprint != one


def test_revision_tells_files_apart(original: Path, folder: Path) -> None:
    """The same files have the same revision when they are loaded again; files of another date have not."""
    one = load_model(original, device="cpu").revision

    assert load_model(original, device="cpu").revision == one
    os.utime(folder / WEIGHTS, (1, 1))
    assert load_model(folder, device="cpu").revision != one
    assert load_model(original, device="cpu", dtype="bfloat16").revision != one


def test_memory_for_a_token_is_known(original: Path) -> None:
    """The bytes of a token's keys and values: layers x (keys + values) x heads x size x bytes of a number."""
    assert load_model(original, device="cpu").kv.token_bytes == 2 * 2 * 2 * 16 * 4
    assert load_model(original, device="cpu", dtype="bfloat16").kv.token_bytes == 2 * 2 * 2 * 16 * 2


def test_context_can_be_made_smaller_but_not_larger(original: Path) -> None:
    """A context within the model's positions is taken, a larger one refused."""
    assert load_model(original, device="cpu", context=100).context == 100
    with pytest.raises(ModelLoadError, match="the model has 512 positions"):
        load_model(original, device="cpu", context=513)
