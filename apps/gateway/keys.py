"""API keys: how they are hashed, and recognised. Knows no gateway, and writes nothing.

A key is `penstock_<id>_<secret>`: the id finds its entry, the secret has 256 random bits. So a fast hash is enough at
rest; nobody can try so many.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from apps.gateway.tenants import OF_ALL, TENANT
from pipeline.errors import SettingsError

SETTING = "gateway.keys_file"
KEY = re.compile(r"penstock_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
PERSON = b"penstock api key"
SALT_BYTES, DIGEST_BYTES = 16, 32
OTHERS_MAY_WRITE = 0o022


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key as it is kept: whose it is, and a salted hash of its secret, which is gone once it is revoked."""

    id: str
    tenant: str
    created: str
    note: str = ""
    salt: bytes = b""
    digest: bytes = b""
    revoked: str | None = None

    @property
    def live(self) -> bool:
        """Whether it lets anybody in."""
        return self.revoked is None and bool(self.digest)


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    keys: list[Entry]
    version: Literal[1] = 1


class Keyring:
    """The keys of a file, to look up."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = {entry.id: entry for entry in entries if entry.live}
        self._nobody = new_entry("", "", "", secrets.token_urlsafe(32))

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> Entry | None:
        """The entry of `key`. An unknown one takes as long as a wrong one."""
        found = KEY.fullmatch(key)
        name, secret = found.groups() if found else ("", "")
        entry = self._entries.get(name, self._nobody)
        right = hmac.compare_digest(_digest(secret, entry.salt), entry.digest)
        return entry if right and entry is not self._nobody else None

    def holds(self, name: str) -> bool:
        """Whether the key with this id still lets anybody in."""
        return name in self._entries


def read(path: Path) -> list[Entry]:
    """All entries of the file.

    Raises:
        SettingsError: it cannot be read, is none, has an entry that is none, or others may write it.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except FileNotFoundError:
        why = f"there is no {path}; `penstock keys add TENANT` makes it, with a first key in it"
        raise SettingsError(SETTING, why) from None
    except OSError as error:
        raise SettingsError(SETTING, f"cannot read {path}: {error.strerror}") from error
    if mode & OTHERS_MAY_WRITE:
        raise SettingsError(SETTING, f"others may write {path}, and so let themselves in; cure: chmod 600 {path}")
    try:
        entries = msgspec.json.decode(content, type=Kept).keys
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SettingsError(SETTING, f"{path} is no file of keys: {error}") from None
    for entry in entries:
        if wrong := _fault(entry):
            why = f"in {path}, the key {entry.id!r} {wrong}; cure: take the entry out, and add a new key in its place"
            raise SettingsError(SETTING, why)
    return entries


def _fault(entry: Entry) -> str:
    """What is wrong with an entry that `penstock keys` cannot have made; nothing if all is right."""
    if not TENANT.fullmatch(entry.tenant) or entry.tenant == OF_ALL:
        return f"is of {entry.tenant!r}, which can be no tenant's name"
    if entry.revoked is None and (len(entry.salt), len(entry.digest)) != (SALT_BYTES, DIGEST_BYTES):
        return f"is not revoked, and has no salt of {SALT_BYTES} bytes and digest of {DIGEST_BYTES}"
    return ""


def new_entry(name: str, tenant: str, note: str, secret: str) -> Entry:
    """The entry of a new key."""
    salt = secrets.token_bytes(SALT_BYTES)
    return Entry(name, tenant, created=now(), note=note, salt=salt, digest=_digest(secret, salt))


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.blake2b(secret.encode(), salt=salt, person=PERSON, digest_size=DIGEST_BYTES).digest()


def now() -> str:
    """The time, for people to read."""
    return datetime.now(UTC).isoformat(timespec="seconds")
