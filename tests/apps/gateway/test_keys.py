"""API keys: made once, kept as hashes, found again, and gone when they are revoked."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from apps.gateway.keyfile import add, revoke
from apps.gateway.keys import KEY, Kept, Keyring, read
from apps.gateway.watched import Watched
from pipeline.errors import InvalidParameter, KeyUnknown, SettingsError


def ring(path: Path) -> Keyring:
    """Return the keys of a file."""
    return Keyring(read(path))


def test_a_key_is_found_and_another_is_not(tmp_path: Path) -> None:
    """The whole key finds its tenant; any other text, and a key whose secret or id is another's, finds nothing."""
    path = tmp_path / "keys.json"
    acme, shop = add(path, "acme", note="website"), add(path, "shop")
    keys = ring(path)

    found = keys.find(acme.key)
    assert found is not None
    assert (found.tenant, found.note, len(keys)) == ("acme", "website", 2)
    mixed = f"penstock_{acme.entry.id}_{shop.key[-43:]}"
    for wrong in (
        "",
        "acme",
        mixed,
        acme.key[:-1],
        acme.key + "x",
        acme.key.upper(),
        f"penstock_{'0' * 12}_{'A' * 43}",
    ):
        assert keys.find(wrong) is None


def test_the_file_tells_no_key_and_is_its_users_alone(tmp_path: Path) -> None:
    """Neither a secret nor a hash that two keys share stands in the file, which nobody else may read."""
    path = tmp_path / "new" / "keys.json"
    made = [add(path, "acme") for _ in range(2)]

    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(KEY.fullmatch(one.key) and one.key[-43:] not in text for one in made)
    assert len({(one.entry.salt, one.entry.digest) for one in made}) == 2
    assert [item.name for item in path.parent.iterdir()] == ["keys.json"]


def test_a_revoked_key_lets_nobody_in(tmp_path: Path) -> None:
    """A revoked key is not found, its hash is gone, and it cannot be revoked again."""
    path = tmp_path / "keys.json"
    one, other = add(path, "acme"), add(path, "acme")

    revoke(path, one.entry.id)

    kept = {entry.id: entry for entry in read(path)}
    assert (kept[one.entry.id].digest, kept[one.entry.id].live) == (b"", False)
    assert kept[one.entry.id].revoked
    assert ring(path).find(one.key) is None
    assert ring(path).find(other.key) is not None
    with pytest.raises(KeyUnknown, match=one.entry.id):
        revoke(path, one.entry.id)


def test_keys_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    """Two who change the file wait for each other."""
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: add(path, f"t{number}"), range(24)))

    assert {entry.id for entry in read(path)} == {one.entry.id for one in made}


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced as a whole or not at all, and nothing is left beside it."""
    path = tmp_path / "keys.json"
    add(path, "acme")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("apps.gateway.keyfile.os.fsync", full)
    with pytest.raises(SettingsError, match="No space left"):
        add(path, "shop")
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("tenant", ["", "default", "a b", "a/b", "ä", "x" * 65, "a:b"])
def test_a_tenant_has_a_plain_name(tenant: str, tmp_path: Path) -> None:
    """What stands in headers and names holds nothing that means something there; `default` is everybody's."""
    with pytest.raises(InvalidParameter, match="tenant"):
        add(tmp_path / "keys.json", tenant)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no .*penstock keys add"),
        (b"", "no file of keys"),
        (b"\xff\xfe", "no file of keys"),
        (b'{"keys": [{"id": 3}]}', "no file of keys"),
        (b'{"keys": [], "version": 2}', "no file of keys"),
        (b'{"keys": [], "more": 1}', "no file of keys"),
    ],
)
def test_a_file_that_is_none_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    """The error names the setting and the file, and says what to do where there is none."""
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(SettingsError, match=rf"gateway\.keys_file.*{said}"):
        read(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tenant": "../x y"}, "is of '../x y', which can be no tenant's name"),
        ({"tenant": ""}, "is of '', which can be no tenant's name"),
        ({"tenant": "default"}, "is of 'default', which can be no tenant's name"),
        ({"salt": b"x" * 17}, "has no salt of 16 bytes"),
        ({"salt": b""}, "has no salt of 16 bytes"),
        ({"digest": b"x" * 31}, "digest of 32"),
        ({"digest": b""}, "digest of 32"),
    ],
)
def test_an_entry_that_is_none_is_named(
    changed: dict[str, str | bytes], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stops a start, by its id; a running gateway says so and lets in whom it did before."""
    path = tmp_path / "keys.json"
    good = add(path, "acme")
    watched = Watched(path, ring)
    bad = add(path, "shop")
    entries = [good.entry, msgspec.structs.replace(bad.entry, **changed)]
    path.write_bytes(msgspec.json.encode(Kept(entries)))
    with pytest.raises(SettingsError, match=rf"gateway\.keys_file.*'{bad.entry.id}'.*{re.escape(said)}"):
        read(path)

    watched.look()
    assert watched.value.find(good.key)
    assert watched.value.find(bad.key) is None
    assert [bad.entry.id in record.message for record in caplog.records if record.levelname == "ERROR"] == [True]


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever writes the file lets themselves in."""
    path = tmp_path / "keys.json"
    add(path, "acme")
    path.chmod(0o620)
    with pytest.raises(SettingsError, match=r"others may write .*chmod 600"):
        read(path)


def test_a_changed_file_is_read_and_a_broken_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a running gateway holds follows the file; while that is broken or gone, what it said before holds."""
    path = tmp_path / "keys.json"
    one = add(path, "acme")
    watched = Watched(path, ring)
    other = add(path, "shop")
    assert watched.value.find(other.key) is None

    watched.look()
    assert watched.value.find(other.key)
    path.write_bytes(b"half")
    watched.look()
    path.unlink()
    watched.look()
    watched.look()

    assert watched.value.find(one.key)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2
    add(path, "acme")
    watched.look()
    assert watched.value.find(one.key) is None
