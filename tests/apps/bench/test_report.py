"""What a measurement is told with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.bench.report import machine, spread, table, told


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank: of a hundred values the 50th, the 95th, the 99th and the last."""
    assert spread(range(100, 0, -1)) == (100, 50, 95, 99, 100)


def test_one_value_is_every_percentile() -> None:
    """A single value is its own median and maximum, and n says that it is one."""
    assert spread([3.5]) == (1, 3.5, 3.5, 3.5, 3.5)


def test_the_machine_is_named() -> None:
    """A figure goes nowhere without cores, processor and load beside it."""
    assert {"cpu", "cores", "load", "python", "date"} <= set(machine())


def test_figures_are_written_with_the_command_that_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says how to produce it again, and on what it was produced."""
    monkeypatch.setattr("sys.argv", ["penstock", "bench", "x", "-n", "3"])
    path = tmp_path / "new" / "x.json"
    told({"answer": 42}, [table("X", {"row": spread([1.0, 2.0])}, unit="ms")], ["a remark"], path)
    result = json.loads(path.read_text())
    assert (result["answer"], result["command"]) == (42, "penstock bench x -n 3")
    assert result["machine"]["cores"] >= 1
    said = capsys.readouterr().out
    assert "a remark" in said
    assert "p95" in said


@pytest.mark.parametrize(
    ("given", "told_of"),
    [
        ("{here}/docs/x.json", "docs/x.json"),
        ("--asr={away}/models/small", "--asr=small"),
        ("docs/x.json", "docs/x.json"),
    ],
)
def test_no_path_of_this_machine_is_told(
    given: str, told_of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is told from where one stands, or by its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["penstock", "bench", given.format(here=tmp_path, away="/far/away")])
    told({}, [], [], tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["command"] == f"penstock bench {told_of}"
