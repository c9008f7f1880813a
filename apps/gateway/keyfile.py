"""Changing the file of API keys: it is replaced as a whole, so that nobody who reads it ever sees half of it."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from apps.gateway.keys import SETTING, Entry, Kept, new_entry, now, read
from apps.gateway.tenants import OF_ALL, TENANT
from pipeline.errors import InvalidParameter, KeyUnknown, SettingsError


class Made(NamedTuple):
    """A new key: its entry, and the key itself, which nobody can tell again."""

    entry: Entry
    key: str


def add(path: Path, tenant: str, note: str = "") -> Made:
    """Add a key of `tenant` to the file, which is made if need be.

    Raises:
        SettingsError: the file is none, or cannot be written.
        InvalidParameter: this can be no tenant's name.
    """
    if not TENANT.fullmatch(tenant) or tenant == OF_ALL:
        raise InvalidParameter("tenant", f"a name has 1 to 64 of A-Z a-z 0-9 . _ -, and is not {OF_ALL!r}: {tenant!r}")
    name, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    entry = new_entry(name, tenant, note, secret)
    with _changing(path) as entries:
        entries.append(entry)
    return Made(entry, f"penstock_{name}_{secret}")


def revoke(path: Path, name: str) -> Entry:
    """Let nobody in any more with the key of this id; what is left of it says when.

    Raises:
        KeyUnknown: there is none, or it is revoked already.
        SettingsError: the file is none, or cannot be written.
    """
    with _changing(path, missing_ok=False) as entries:
        for place, entry in enumerate(entries):
            if entry.id == name and entry.live:
                entries[place] = msgspec.structs.replace(entry, salt=b"", digest=b"", revoked=now())
                return entries[place]
        raise KeyUnknown(name, str(path))


@contextmanager
def _changing(path: Path, *, missing_ok: bool = True) -> Generator[list[Entry], None, None]:
    """The entries of the file, written back in the end; two who change it wait for each other."""
    try:
        with _locked(path.parent):
            entries = [] if missing_ok and not path.exists() else read(path)
            yield entries
            _replace(path, msgspec.json.format(msgspec.json.encode(Kept(entries)), indent=1) + b"\n")
    except OSError as error:
        raise SettingsError(SETTING, f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes) -> None:
    """Put `content` in the file's place, for this user alone."""
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
