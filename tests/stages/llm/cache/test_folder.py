"""A folder of bounded size, that several share."""

from __future__ import annotations

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.llm.cache.folder import ABANDONED_S, Folder

NOW = 1_000_000.0


def name(number: int) -> str:
    """A file name as ours are."""
    return f"{number:032x}.kv"


def add(folder: Folder, number: int, size: int, *, used: float = NOW) -> int:
    """Add a file of that size."""

    def write(file: BinaryIO) -> None:
        file.write(bytes(size))

    return folder.add(name(number), write, used=used)


def opened(path: Path, limit: int) -> Folder:
    """An open folder."""
    folder = Folder(path, limit)
    folder.open()
    return folder


def there(path: Path) -> set[str]:
    """What lies in the folder."""
    return {entry.name for entry in path.iterdir()}


@given(adds=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(0, 99)), max_size=30))
def test_files_stay_within_the_bound(
    tmp_path_factory: pytest.TempPathFactory, adds: list[tuple[int, int, int]]
) -> None:
    """Whatever is added, there are at most `limit` bytes, the folder knows them, and the oldest were dropped."""
    path = tmp_path_factory.mktemp("folder")
    folder = opened(path, 100)
    for number, size, used in adds:
        before = {entry.name: entry.stat() for entry in path.iterdir()}
        add(folder, number, size, used=NOW + used)
        after = {entry.name: entry.stat() for entry in path.iterdir()}

        assert folder.bytes == sum(status.st_size for status in after.values()) <= 100
        before[name(number)] = os.stat_result((0,) * 6 + (size, 0, NOW + used, 0))
        dropped = [status.st_mtime for one, status in before.items() if one not in after]
        assert max(dropped, default=0) <= min((status.st_mtime for status in after.values()), default=NOW * 2)


def test_the_latest_used_survive_a_restart(tmp_path: Path) -> None:
    """Which file was used when is known again after a restart, and to other processes."""
    first = opened(tmp_path, 1000)
    for number in range(4):
        add(first, number, 100, used=NOW + number)
    first.use(name(0))

    opened(tmp_path, 250)

    assert there(tmp_path) == {name(0), name(3)}


def test_two_processes_keep_the_bound_together(tmp_path: Path) -> None:
    """What another process wrote is found when the folder is looked at, and counts."""
    one, other = opened(tmp_path, 1000), opened(tmp_path, 1000)
    for number in range(40):
        add(one, number, 60, used=NOW + number)
        add(other, 100 + number, 60, used=NOW + number)

    assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) <= 1000 + 1000 // 8


def test_a_file_that_another_removed_is_no_error(tmp_path: Path) -> None:
    """Using, removing or dropping what has vanished does nothing."""
    folder = opened(tmp_path, 100)
    add(folder, 1, 60)
    (tmp_path / name(1)).unlink()

    folder.use(name(1))
    add(folder, 2, 60, used=NOW + 1)
    folder.remove(name(1))
    folder.remove(name(9))

    assert there(tmp_path) == {name(2)}


def test_only_we_can_read_it(tmp_path: Path) -> None:
    """Folder and files are for their owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        folder = opened(tmp_path / "a" / "b", 100)
        add(folder, 1, 10)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / name(1)).stat().st_mode) == 0o600


def test_half_a_file_is_never_seen(tmp_path: Path) -> None:
    """If writing fails, nothing is left of it, and what was there before is."""
    folder = opened(tmp_path, 100)
    add(folder, 1, 10)

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        folder.add(name(1), fail, used=NOW)

    assert there(tmp_path) == {name(1)}
    assert (tmp_path / name(1)).stat().st_size == 10


def test_what_others_left_is_cleared_and_what_is_not_ours_is_not(tmp_path: Path) -> None:
    """Old half-written files go; new ones and foreign files stay, and do not count."""
    for foreign in ("letter.txt", "model.kv", "penstock-new.part", "penstock-old.part"):
        (tmp_path / foreign).write_bytes(bytes(500))
    old = time.time() - 2 * ABANDONED_S
    os.utime(tmp_path / "penstock-old.part", (old, old))

    folder = opened(tmp_path, 100)
    add(folder, 1, 50)

    assert there(tmp_path) == {"letter.txt", "model.kv", "penstock-new.part", name(1)}


def test_one_writes_while_another_uses_and_removes(tmp_path: Path) -> None:
    """A writer and a user at once find no half-made state."""
    folder = opened(tmp_path, 500)

    def write() -> None:
        for turn in range(300):
            add(folder, turn % 7, 100, used=NOW + turn)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        while not writing.done():
            for number in range(7):
                if name(number) in folder:
                    folder.use(name(number))
                folder.remove(name((number + 3) % 7))

    assert writing.exception() is None
    assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) <= 500
