"""No disk does harm: damaged, full, slow, gone, or shared with another process."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stages.llm.cache import disk as disk_module
from stages.llm.cache import kvfile
from stages.llm.cache.disk import DiskCache
from tests.stages.llm.cache.test_kvfile import computed, counted
from tests.stages.llm.disks import DEADLINE_S, IDS, TOKENS, Gate, Make, files, put, until


@pytest.mark.parametrize("harm", ["flipped", "cut", "foreign", "empty"])
def test_a_damaged_file_is_a_miss_and_goes(make: Make, folder: Path, harm: str) -> None:
    """It is removed and counted, and the next turn can be written again."""
    tier = make()
    put(tier, "s")
    (path,) = files(folder)
    data = path.read_bytes()
    path.write_bytes(
        {"flipped": data[:-40] + b"!" + data[-39:], "cut": data[:-40], "foreign": b"x" * 999, "empty": b""}[harm]
    )

    assert tier.take("s", IDS) is None
    assert tier.counts.damaged == 1
    assert not files(folder)
    put(tier, "s")
    assert tier.take("s", IDS) is not None


def test_a_full_disk_turns_the_tier_off(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, nothing left half-written, and from then on a tier that has nothing."""
    tier = make()
    put(tier, "s")
    monkeypatch.setattr(kvfile, "write", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for scope in "tuv":
        tier.put(scope, computed(TOKENS))
    until(lambda: not tier._thread.is_alive())
    tier.put("w", computed(TOKENS))

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"the disk cache {folder} is off from now on: [Errno 28] No space left on device"
    ]
    assert len(files(folder)) == 1
    assert tier.take("s", IDS) is None
    assert not tier._waiting


@pytest.mark.parametrize("inside", ["file", "file/kv"])
def test_a_folder_that_cannot_be_made_turns_the_tier_off(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, inside: str
) -> None:
    """A file in its place, say: one warning, and serving goes on."""
    (tmp_path / "file").touch()
    tier = make(path=tmp_path / inside)
    tier.put("s", computed(TOKENS))

    assert tier.take("s", IDS) is None
    assert not tier.on
    assert len(caplog.records) == 1


def test_whatever_goes_wrong_with_a_file_is_a_miss(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for what is read, say: the answer can be computed."""
    tier = make()
    put(tier, "s")
    monkeypatch.setattr(torch, "empty", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))

    assert tier.take("s", IDS) is None
    assert not tier.on


def test_a_file_that_another_process_dropped_is_a_miss(make: Make, folder: Path) -> None:
    """It is not counted as damaged."""
    tier = make()
    put(tier, "s")
    files(folder)[0].unlink()

    assert tier.take("s", IDS) is None
    assert tier.counts.damaged == 0
    assert tier.on


def test_nobody_waits_for_a_slow_disk(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits can be taken back, what is being written is a miss, and beyond the bound it is dropped and counted."""
    monkeypatch.setattr(disk_module, "WAITING_BYTES", 3 * computed(TOKENS).bytes)
    gate = Gate(monkeypatch)
    tier = make()
    tier.put("writing", computed(TOKENS))
    assert gate.reached.wait(DEADLINE_S)
    began = time.monotonic()
    kept = {scope: computed(TOKENS) for scope in "abcd"}
    for scope, one in kept.items():
        tier.put(scope, one)

    assert tier.take("b", IDS) is kept["b"]
    assert tier.take("b", IDS) is None
    assert tier.take("d", IDS) is None
    assert tier.take("writing", IDS) is None
    assert tier.counts.lost == 1
    assert time.monotonic() - began < DEADLINE_S / 2
    gate.open.set()
    until(lambda: tier.counts.written == 3)
    assert tier.take("writing", IDS) is not None


def test_what_is_larger_than_may_wait_can_wait_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of any size that the folder has room for is written; one that has no room there is not."""
    monkeypatch.setattr(disk_module, "WAITING_BYTES", 1)
    put(make(), "s")
    small = make(limit=100)
    small.put("s", computed(TOKENS))

    assert not small._waiting


def test_at_the_end_all_is_written_though_much_waits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory held at the end is not dropped for the bound of the queue; the latest is the last to be dropped."""
    monkeypatch.setattr(disk_module, "WAITING_BYTES", 1)
    tier = make()
    kept = [(scope, replace(computed(TOKENS), used=used)) for scope, used in (("c", 3.0), ("b", 2.0), ("a", 1.0))]
    tier.put_last(kept)
    tier.close(DEADLINE_S)
    size = tier.counts.written_bytes // 3
    again = make(limit=2 * size)

    assert tier.counts.written == 3
    assert [scope for scope in "abc" if again.take(scope, IDS)] == ["b", "c"]


def test_closing_waits_only_so_long_for_a_slow_disk(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be written is told; what was begun is whole or not there."""
    gate = Gate(monkeypatch)
    tier = make()
    tier.put_last((scope, computed(TOKENS)) for scope in "abc")
    assert gate.reached.wait(DEADLINE_S)
    began = time.monotonic()
    tier.close(0.1)

    assert time.monotonic() - began < DEADLINE_S / 2
    assert "3 sessions' keys and values were not written" in caplog.text
    gate.open.set()
    until(lambda: not tier._thread.is_alive())
    monkeypatch.undo()
    again = make()
    assert len(files(folder)) == 1
    assert again.take("a", IDS) is not None


def test_readers_and_a_writer_at_once(make: Make) -> None:
    """Two processes on one folder, each reading and writing the same scopes: always the right bits, or a miss."""
    kept = {scope: computed(TOKENS + number) for number, scope in enumerate("abcd")}
    bits = {scope: counted(one.blocks, len(one.ids)) for scope, one in kept.items()}
    tiers = [make(), make(limit=3 * kept["a"].bytes)]
    deadline = time.monotonic() + 1.0

    def play(tier: DiskCache) -> None:
        while time.monotonic() < deadline:
            for scope, one in kept.items():
                tier.put(scope, one)
                until(lambda: not tier._waiting)
                found = tier.take(scope, [*one.ids, 1])
                assert found is None or counted(found.blocks, len(one.ids)) == bits[scope]

    with ThreadPoolExecutor(2) as threads:
        for playing in [threads.submit(play, tier) for tier in tiers]:
            playing.result(DEADLINE_S)
    assert sum(tier.counts.damaged for tier in tiers) == 0
    assert sum(tier.counts.hits for tier in tiers) > 0
