"""The supervisor as a program: how it ends, who goes with it, and how it is found."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from apps.supervisor import runtime
from pipeline.errors import FolderUnsafe, SupervisorRunning
from tests.apps.supervisor.fake_worker import lives

DEADLINE_S = 40.0
POLL_S = 0.05


def until(holds: Callable[[], Any]) -> Any:
    """Return what `holds` gives once it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(POLL_S)
    return found


class Program:
    """A supervisor of fake workers as a process of its own."""

    def __init__(self, folder: Path, place: Path, *arguments: str, **behaviour: Any) -> None:
        self.folder, self.place = folder, place
        (folder / "behaviour.json").write_text(json.dumps([behaviour] * 10))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.apps.supervisor.fake_supervisor", str(folder), *arguments],
                env={**os.environ, "XDG_RUNTIME_DIR": str(place)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def workers(self) -> list[dict[str, Any]]:
        """What it tells of its workers; none before it can be asked."""
        for path in (self.place / "penstock").glob("*.sock"):
            answer = runtime.ask(path)
            if answer is not None:
                rows: list[dict[str, Any]] = json.loads(answer)["workers"]
                return rows
        return []

    def ready(self, active: int, standby: int = 0) -> list[int]:
        """Return the processes' ids once so many serve and wait."""

        def there() -> list[int]:
            rows = self.workers()
            roles = [row["role"] for row in rows]
            done = roles.count("active") == active and roles.count("standby") == standby
            return [row["pid"] for row in rows] if done else []

        found: list[int] = until(there)
        return found

    def send(self, number: signal.Signals) -> None:
        """Signal the supervisor alone."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit status."""
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a runtime folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def program(tmp_path: Path, place: Path) -> Iterator[Callable[..., Program]]:
    """Give what starts a supervisor, which does not outlive the test."""
    running: list[Program] = []

    def start(*arguments: str, **behaviour: Any) -> Program:
        running.append(Program(tmp_path, place, *arguments, **behaviour))
        return running[-1]

    yield start
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait(DEADLINE_S)


def status(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `penstock status`."""
    return subprocess.run(
        [sys.executable, "-m", "apps.cli", "status", *options],
        env={**os.environ, "XDG_RUNTIME_DIR": str(place)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.slow
def test_a_supervisor_that_is_killed_takes_its_workers_with_it(program: Callable[..., Program]) -> None:
    """Kill -9 closes the pipes, and no worker holds another's open."""
    it = program("2", "1")
    pids = it.ready(2, 1)
    it.send(signal.SIGKILL)
    until(lambda: not any(lives(pid) for pid in pids))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_drains_all_and_ends_well(program: Callable[..., Program], number: signal.Signals) -> None:
    """Status 0, every worker had its time, and nothing is left in the runtime folder but the lock."""
    it = program("2", "1", drains_s=0.3)
    it.ready(2, 1)
    it.send(number)
    assert it.ended() == 0
    assert (it.folder / "events").read_text().count("drained") == 3
    assert [path.suffix for path in (it.place / "penstock").iterdir()] == [".lock"]
    assert "Traceback" not in it.log


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(program: Callable[..., Program]) -> None:
    """Nobody has to wait for workers that take too long, and they do not stay behind."""
    it = program("1", "0", stubborn=True)
    pids = it.ready(1)
    it.send(signal.SIGINT)
    until(lambda: "stopping" in it.log)
    it.send(signal.SIGINT)
    assert it.ended() == 130
    until(lambda: not any(lives(pid) for pid in pids))


@pytest.mark.slow
def test_one_log_in_whole_lines(program: Callable[..., Program]) -> None:
    """Every line of every worker is there, whole and with its worker's name."""
    says = [f"{number} " + "y" * 2000 for number in range(50)]
    it = program("3", "0", says=says)
    pids = it.ready(3)
    for pid in pids:
        mine = [text.partition(" | ") for text in it.log.splitlines() if f"[{pid}] | " in text]
        assert [said for _, _, said in mine] == says


@pytest.mark.slow
def test_status_shows_workers_as_a_table_and_as_json(
    program: Callable[..., Program], place: Path, unused_port: int
) -> None:
    """The same for people and for programs; the health port tells whether all ids are served, and all metrics."""
    it = program("2", "1", str(unused_port))
    pids = it.ready(2, 1)
    said = status(place)
    assert said.returncode == 0, said.stderr
    assert all(str(pid) in said.stdout for pid in pids)
    assert all(word in said.stdout for word in ("test-llm-0", "test-llm-1", "standby", "prompts 0-1"))
    (found,) = json.loads(status(place, "--json").stdout)
    assert [row["identity"] for row in found["workers"]] == ["test-llm-0", "test-llm-1", ""]
    with urlopen(f"http://127.0.0.1:{unused_port}/readyz", timeout=5) as answer:
        assert answer.status == 200
    with urlopen(f"http://127.0.0.1:{unused_port}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    assert 'fake{worker="test-llm-0"} 1.0' in page
    assert 'penstock_supervisor_workers{role="active",stage="llm"} 2.0' in page


@pytest.mark.slow
def test_not_ready_while_an_id_is_not_served(program: Callable[..., Program], unused_port: int) -> None:
    """Who balances load or rolls out sees that a worker is missing."""
    it = program("1", "0", str(unused_port), loads_s=600)
    until(it.workers)
    with pytest.raises(HTTPError) as refusal:
        urlopen(f"http://127.0.0.1:{unused_port}/readyz", timeout=5)
    with refusal.value as answer:
        assert (answer.code, answer.read()) == (503, b"llm-0: starting\n")


@pytest.mark.slow
def test_status_without_a_supervisor_says_so(place: Path) -> None:
    """Where nothing runs, it says where it looked and what to do; a leftover socket is told and removed."""
    folder = place / "penstock"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(folder / "llm-x.sock"))
    said = status(place)
    assert said.returncode == 1
    assert "leftover of a supervisor that was killed" in said.stderr
    assert f"no supervisor runs here (looked in {folder})" in said.stderr
    assert list(folder.iterdir()) == []
    again = status(place, "--json")
    assert (again.returncode, again.stdout) == (1, "[]\n")
    assert again.stderr == ""


@pytest.mark.slow
def test_two_supervisors_do_not_share_ids(program: Callable[..., Program]) -> None:
    """The second of one name on a machine ends, and says what to do; the first is left alone."""
    first = program("1", "0")
    pids = first.ready(1)
    second = program("1", "0")
    assert second.ended() == 1
    assert "a supervisor of 'test-llm' runs on this machine" in " ".join(second.log.split())
    assert [row["pid"] for row in first.workers()] == pids


async def test_the_lock_outlives_its_supervisor_in_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as one who inherited it lives, no other supervisor can hand out the same ids."""
    monkeypatch.setattr(runtime, "LOCK_S", 0.2)
    path = tmp_path / "lock"
    async with runtime.locked(path, "x") as fd:
        inherited = os.dup(fd)
    with pytest.raises(SupervisorRunning, match="'x'"):
        async with runtime.locked(path, "x"):
            pass
    os.close(inherited)
    async with asyncio.timeout(DEADLINE_S), runtime.locked(path, "x") as fd:
        fcntl.fcntl(fd, fcntl.F_GETFD)


def test_the_runtime_folder_is_ours_alone(tmp_path: Path) -> None:
    """It is made so, and one that others can write to, or a link, is not used."""
    folder = runtime.folder({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    with pytest.raises(FolderUnsafe, match="0700"):
        runtime.folder({"XDG_RUNTIME_DIR": str(tmp_path)})
    folder.chmod(0o700)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FolderUnsafe):
        runtime.folder({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_file_names_are_short_and_different() -> None:
    """Any name makes a socket's path that is not too long, and no two the same."""
    names = [runtime.file_name(name) for name in ("a" * 300, "a" * 301, "a/../b", "a b", "a_b")]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 40 and "/" not in name for name in names)
