"""The small files of a model are whole, or the error names the one that is not, and the cure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from apps.parts import loaded
from apps.settings import ModelSettings
from pipeline.errors import ModelLoadError
from stages.llm.models.checkpoint import check
from stages.llm.models.configs import FILES
from tests.stages import models

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return models.save(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "model"))


DAMAGES = [
    ("{", r"is damaged \(Expecting property name.*\); fetch the file again"),
    ("", r"is damaged \(Expecting value.*\); fetch the file again"),
    ("[]", r"is damaged \(no JSON object\); fetch the file again"),
    ("[" * 100_000, r"is damaged"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"is only Git LFS's pointer.*`git lfs pull`"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("text", "words"), DAMAGES, ids=range(len(DAMAGES)))
def test_the_damaged_file_is_named(name: str, text: str, words: str, folder: Path) -> None:
    """Whichever of the small files is damaged, the error names it and the cure, and not another."""
    (folder / name).write_text(text)
    with pytest.raises(ModelLoadError, match=rf": {name} {words}") as refusal:
        check(str(folder), folder)
    assert refusal.value.source == str(folder)


def test_bytes_that_are_no_text_are_damage(folder: Path) -> None:
    """A file of other bytes is named as well."""
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelLoadError, match=r"config\.json is damaged"):
        check(str(folder), folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": "many"}, "hidden_size"),
        ({"model_type": "zorg"}, "zorg"),
    ],
    ids=["type", "kind"],
)
@pytest.mark.filterwarnings("ignore")  # the library may complain in its own way as well
def test_a_configuration_of_no_use_is_named(fields: dict[str, object], words: str, folder: Path) -> None:
    """What is JSON and yet no configuration is the configuration's fault, not the tokenizer's."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(ModelLoadError, match=rf": its config\.json is of no use: .*{words}"):
        check(str(folder), folder)


def test_a_tokenizer_that_lacks_its_model_is_named(folder: Path) -> None:
    """A tokenizer.json without a tokenizer in it."""
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json lacks 'model'; fetch the file again"):
        check(str(folder), folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_named(text: str, folder: Path) -> None:
    """An index of the weights that maps nothing."""
    (folder / INDEX).write_text(text)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors\.index\.json is damaged .*fetch the file again"):
        check(str(folder), folder)


async def test_a_stage_without_weights_says_the_same(folder: Path) -> None:
    """Where only the tokenizer is needed, the damaged file is named, too, and no weights are missed."""
    (folder / "model.safetensors").unlink()
    model = ModelSettings(name=str(folder))
    async with loaded(model, with_engine=False) as parts:
        assert parts.context == 512
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"config\.json is damaged"):
        async with loaded(model, with_engine=False):
            pass


async def test_a_path_without_a_folder_is_no_name(tmp_path: Path) -> None:
    """A stage without weights does not take a path for a name on the network either."""
    with pytest.raises(ModelLoadError, match="there is no such folder"):
        async with loaded(ModelSettings(name=str(tmp_path / "nowhere")), with_engine=False):
            pass
