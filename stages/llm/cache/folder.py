"""A folder of files for ourselves alone, at most so many bytes of them, the least recently used dropped first.

A file appears whole or not at all, and may vanish at any time: other processes share the folder. What is there is known
without looking; now and then it is looked at, for what the others did. Knows nothing of what is in the files.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

NAME = re.compile(r"[0-9a-f]{32}\.kv")
"""What our files are called; no others are touched."""
HALF = re.compile(r"penstock-.*\.part")
ABANDONED_S = 600.0
"""The age from which a half-written file is nobody's."""
LOOKS = 16
"""Into how many parts the limit is cut: after each of them written, the folder is looked at."""


class Found(NamedTuple):
    """A file: when it was last used (`time.time`), and its bytes."""

    used: float
    size: int


class Folder:
    """Files of at most `limit` bytes together. One thread adds, another may use them; neither waits for the other."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self._files: dict[str, Found] = {}
        self._unlooked = 0
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def bytes(self) -> int:
        """What the known files have together."""
        return sum(found.size for found in list(self._files.values()))

    def open(self) -> None:
        """Make the folder if need be, and see what is there.

        Raises:
            OSError: it cannot be made or looked at.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._look()
        self._shrink()

    def add(self, name: str, write: Callable[[BinaryIO], None], *, used: float) -> int:
        """Have `write` fill the file, in place of any of that name; its bytes. The oldest make room for it.

        Raises:
            OSError: the disk is full, or not writable.
        """
        handle, half = tempfile.mkstemp(".part", "penstock-", self.path)  # readable by us alone
        try:
            with open(handle, "wb") as file:
                write(file)
                size = file.tell()
            os.utime(half, (used, used))
            os.replace(half, self.path / name)
        except BaseException:  # a cancel, too, must leave no half file
            remove(Path(half))
            raise
        with self._lock:
            self._files[name] = Found(used, size)
        self._unlooked += size
        if self._unlooked > self.limit // LOOKS:
            self._look()
        self._shrink()
        return size

    def use(self, name: str) -> None:
        """Remember that the file was of use just now."""
        with suppress(OSError):  # it may be gone
            os.utime(self.path / name)
        with self._lock:
            if name in self._files:
                self._files[name] = self._files[name]._replace(used=time.time())

    def remove(self, name: str) -> None:
        """Remove the file, if it is still there."""
        with self._lock:
            self._files.pop(name, None)
        remove(self.path / name)

    def forget(self) -> None:
        """Know of no file any more."""
        with self._lock:
            self._files = {}

    def _shrink(self) -> None:
        excess = self.bytes - self.limit
        if excess <= 0:
            return
        files = dict(self._files)
        for name in sorted(files, key=lambda name: files[name].used):
            self.remove(name)
            excess -= files[name].size
            if excess <= 0:
                return

    def _look(self) -> None:
        """See which files there are, whoever wrote them, and remove what was left half-written."""
        self._unlooked = 0
        files = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if NAME.fullmatch(entry.name):
                        files[entry.name] = Found(status.st_mtime, status.st_size)
                    elif HALF.fullmatch(entry.name) and time.time() - status.st_mtime > ABANDONED_S:
                        remove(Path(entry.path))
        with self._lock:
            self._files = files


def remove(path: Path) -> None:
    """Remove the file at `path`, if it is there and that is allowed."""
    with suppress(OSError):
        path.unlink()
