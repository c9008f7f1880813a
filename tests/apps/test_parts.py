"""What the stages are made of: where a model comes from, how it is called, and which stages can share a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from apps import parts
from apps.parts import NAMES, check_names, draft_source, loaded, on_disk, served_name, source
from apps.settings import ModelSettings, StageSettings
from pipeline.errors import ModelLoadError, SettingsError
from pipeline.messages import Delta, Sampling, Turn, Utterance

LONG = "How much is a tent for two, and how long does it take until it is here? " * 4


@pytest.mark.parametrize(
    "names",
    [("text",), ("llm",), ("postprocess",), ("speech",), ("speak",), ("text", "llm"), ("llm", "postprocess"), NAMES],
    ids="+".join,
)
def test_stages_that_follow_each_other_can_be_chained(names: tuple[str, ...]) -> None:
    """One stage, or several in the order of the route."""
    assert check_names(names) == names


@pytest.mark.parametrize(
    "names",
    [
        ("text", "postprocess"),
        ("llm", "text"),
        ("text", "text"),
        ("none",),
        ("speech", "text"),
        ("postprocess", "speak"),
        (),
    ],
    ids="+".join,
)
def test_others_cannot(names: tuple[str, ...]) -> None:
    """A gap, a wrong order, the same twice, what does not exist, and nothing at all."""
    with pytest.raises(SettingsError):
        check_names(names)


def test_a_folder_is_called_by_its_name(tmp_path: Path) -> None:
    """The name by which clients ask is the folder's last part, the Hugging Face name, or what was chosen."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert served_name(ModelSettings(name=str(folder))) == "my-model"
    assert served_name(ModelSettings(name="someone/something")) == "someone/something"
    assert served_name(ModelSettings(name=str(folder), alias="gpt-realtime")) == "gpt-realtime"
    assert served_name(ModelSettings()) == "penstock-demo"


def test_a_missing_demo_model_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation without the bundled model says so, and how to go on."""
    monkeypatch.setattr(parts, "BUNDLED", tmp_path)
    with pytest.raises(ModelLoadError, match="--model"):
        source(ModelSettings())


def test_the_demo_model_has_a_draft_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The bundled draft belongs to the bundled model alone; `none` and another choice override it."""
    (tmp_path / "draft").mkdir()
    monkeypatch.setattr(parts, "BUNDLED", tmp_path)
    assert draft_source(ModelSettings()) == str(tmp_path / "draft")
    assert draft_source(ModelSettings(draft="none")) is None
    assert draft_source(ModelSettings(name="someone/something")) is None
    assert draft_source(ModelSettings(name="someone/something", draft="someone/smaller")) == "someone/smaller"


def test_keys_and_values_go_to_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no folder is named it is the XDG cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert on_disk(ModelSettings()).disk == str(tmp_path / "penstock" / "kv")
    assert on_disk(ModelSettings(disk="/elsewhere")).disk == "/elsewhere"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert on_disk(ModelSettings()).disk == str(tmp_path / ".cache" / "penstock" / "kv")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert on_disk(ModelSettings()).disk == ""


async def answer(model: ModelSettings, question: str = "How much is a tent?") -> str:
    """Hold one turn through all three stages, chained."""
    async with loaded(model) as found:
        chained = found.chained(NAMES, StageSettings())
        assert chained.each is not None
        turn = Turn("s", "t", (Utterance("user", question),), Sampling(max_output_tokens=12))
        return "".join([out.text async for out in chained.each(turn) if isinstance(out, Delta)])


async def test_a_draft_changes_no_answer(small_model: Path) -> None:
    """With a draft model the answer is the same."""
    alone = await answer(ModelSettings(name=str(small_model), threads=1))
    assert alone
    assert await answer(ModelSettings(name=str(small_model), draft=str(small_model), threads=1)) == alone


@pytest.mark.parametrize(("disk_mb", "kept"), [(9, True), (0, False)])
async def test_what_was_computed_outlives_the_program(
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    disk_mb: int,
    kept: bool,
) -> None:
    """With a folder and room in it, the same answer comes after a restart, with what the first one left."""
    caplog.set_level("INFO", "stages.llm.cache.disk")
    monkeypatch.setattr("stages.llm.engine.prompt_token", lambda *_: 1.0)
    model = ModelSettings(name=str(small_model), threads=1, disk=str(tmp_path / "kv"), disk_mb=disk_mb)
    first = await answer(model, LONG)

    assert await answer(model, LONG) == first
    assert (tmp_path / "kv").exists() == kept
    assert ("hits=1" in caplog.text) == kept


async def test_what_the_tier_on_disk_counts_is_told(small_model: Path, tmp_path: Path) -> None:
    """Whoever brings a registry has the counts in it."""
    registry = CollectorRegistry()
    async with loaded(ModelSettings(name=str(small_model), threads=1, disk=str(tmp_path)), registry=registry):
        assert registry.get_sample_value("penstock_llm_disk_hits_total") == 0


async def test_a_stage_without_a_model_loads_no_model(small_model: Path) -> None:
    """Where only the tokenizer is needed there is no engine."""
    async with loaded(ModelSettings(name=str(small_model)), with_engine=False) as found:
        assert found.engine is None
        assert found.context == 512
        assert found.stage("text", StageSettings()).name == "text"
