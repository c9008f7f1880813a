"""What is read from a file, and read anew when the file changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.errors import SettingsError

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[int, int, int] | None
"""Which file it is, when it was changed, and its size; None where there is none."""


class Watched(Generic[T]):
    """What `read` makes of the file at `path`. A file that cannot be read any more leaves it as it was."""

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self._path, self._read = path, read
        self._seen = _stamp(path)
        self.value = read(path)

    def look(self) -> None:
        """Read the file if it has changed."""
        if (stamp := _stamp(self._path)) == self._seen:
            return
        self._seen = stamp
        try:
            self.value = self._read(self._path)
            log.info("%s has changed, and was read", self._path)
        except SettingsError as error:
            log.error("%s; what it said before still holds", error)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
