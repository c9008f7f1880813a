"""`penstock keys`: made and shown once, listed by id, revoked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.gateway.keys import Keyring, read
from tests.apps.test_cli import penstock


@pytest.mark.slow
def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    """The key alone is written to the output, so that a script can take it; the list tells all but the key."""
    path = tmp_path / "keys.json"
    there: Any = {"PENSTOCK_GATEWAY_KEYS_FILE": str(path)}

    made = penstock("keys", "add", "acme", "--note", "the [website]", **there)
    key = made.stdout.strip()
    entry = Keyring(read(path)).find(key)
    assert entry is not None
    assert (made.returncode, entry.tenant) == (0, "acme")
    assert key not in made.stderr
    assert "acme" in made.stderr

    listed = penstock("keys", "list", "--file", str(path))
    assert all(word in listed.stdout for word in (entry.id, "acme", "the [website]"))
    assert key[-43:] not in listed.stdout

    gone = penstock("keys", "revoke", entry.id, "--set", f"gateway.keys_file={path}")
    assert (gone.returncode, Keyring(read(path)).find(key)) == (0, None)
    assert entry.id not in penstock("keys", "list", **there).stdout
    assert entry.id in penstock("keys", "list", "--all", **there).stdout


@pytest.mark.slow
def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    """No file, an unknown id and a name that can be none are told in a line, with the status of their kind."""
    path = str(tmp_path / "keys.json")
    nowhere = penstock("keys", "list", cwd=tmp_path)
    missing = penstock("keys", "list", "--file", path)
    name = penstock("keys", "add", "a b", "--file", path)
    assert penstock("keys", "add", "acme", "--file", path).returncode == 0
    unknown = penstock("keys", "revoke", "000000000000", "--file", path)

    assert [one.returncode for one in (nowhere, missing, name, unknown)] == [2, 2, 1, 1]
    assert "gateway.keys_file" in nowhere.stderr
    assert "there is no" in missing.stderr
    assert "no key '000000000000' is valid" in unknown.stderr
    assert all(len(one.stderr.splitlines()) == 1 and not one.stdout for one in (nowhere, missing, name, unknown))
