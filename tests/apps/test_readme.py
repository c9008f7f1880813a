"""What the README says of the tree, the settings and the numbers was written by a program, and is not out of date."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.settings import Settings
from pipeline.settings import from_toml, leaves, load

ROOT = Path(__file__).parents[2]


def test_the_readme_is_up_to_date() -> None:
    """`scripts/readme.py --check` has nothing to complain about."""
    done = subprocess.run(
        [sys.executable, "scripts/readme.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_can_be_read_as_it_is() -> None:
    """The example file is valid, and changes nothing as long as all in it is commented out."""
    assert load(Settings, from_toml(Settings, ROOT / "penstock.example.toml")).settings == Settings()


def test_the_example_names_every_setting() -> None:
    """With the comment signs taken away it names every setting once, below its section."""
    lines = (ROOT / "penstock.example.toml").read_text().splitlines()
    values = [line[2:] if " = " in line and line[2:].split(" = ")[0].isidentifier() else line for line in lines]
    tree = tomllib.loads("\n".join(line.replace(" = ...", ' = ""') for line in values))
    assert set(names(tree)) == set(leaves(Settings))


def names(tree: dict[str, Any], path: str = "") -> Iterator[str]:
    """Give the names of all settings in a TOML tree; an empty table is the value of one."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from names(value, f"{path}{key}.")
        else:
            yield path + key


def test_every_file_that_the_readme_names_exists() -> None:
    """The walk through the files leads to no dead end."""
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"`((?:pipeline|stages|apps|tests|scripts)/[\w/]+\.\w+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
