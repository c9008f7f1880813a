"""The wheel: a program that is installed from it has all its files, as one that is installed in place has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "stages", "apps")
DEADLINE_S = 100


def files_of(tree: Path) -> set[str]:
    """Return the files of the packages below `tree`."""
    return {str(path.relative_to(tree)) for name in PACKAGES for path in (tree / name).rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_wheel_has_every_file_of_the_packages(tmp_path: Path) -> None:
    """The page, the model, the phrases that it is trained on and what it is measured with are all in it."""
    tree = tmp_path / "tree"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    expected = files_of(tree)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), str(tree)]
    subprocess.run(command, check=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)

    (wheel,) = tmp_path.glob("*.whl")
    assert expected - set(zipfile.ZipFile(wheel).namelist()) == set()
    assert {"apps/chat/static/widget.js", "apps/demo/models/target/model.safetensors"} <= expected
