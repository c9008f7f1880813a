"""Tests that want the machine alone have it, and others have it together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

DEADLINE_S = 30.0
SCRIPT = """
import sys
from pathlib import Path
from tests.room import entered

print("waits", flush=True)
with entered(Path(sys.argv[1]), alone=sys.argv[2] == "alone"):
    print("in", flush=True)
    sys.stdin.readline()
"""


class Guest:
    """A process that enters the room, and leaves it when it is told."""

    def __init__(self, room: Path, how: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(room), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._says() == "waits"

    def enters(self) -> None:
        """Wait until it is in."""
        assert self._says() == "in"

    def leaves(self) -> None:
        """Have it leave, and wait until it has; it was in."""
        said, _ = self._process.communicate("\n", timeout=DEADLINE_S)
        assert said in ("", "in\n")
        assert self._process.returncode == 0

    def close(self) -> None:
        """End it, wherever it is."""
        with self._process:
            self._process.kill()

    @property
    def locked_out(self) -> bool:
        """Whether it waits for a lock, as far as the kernel tells."""
        rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return any(row[1] == "->" and row[5] == str(self._process.pid) for row in rows)

    def waits(self) -> None:
        """Wait until it waits."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.locked_out:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Guests:
    """All guests of a test, in one room."""

    def __init__(self, room: Path, stack: ExitStack) -> None:
        self._room, self._stack = room, stack

    def comes(self, how: str) -> Guest:
        """One more."""
        guest = Guest(self._room, how)
        self._stack.callback(guest.close)
        return guest


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[Guests]:
    """Give a room, and who comes; all are gone in the end."""
    with ExitStack() as stack:
        yield Guests(tmp_path / "room", stack)


pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who waits for a lock")


def test_others_are_in_it_together(guests: Guests) -> None:
    """Who does not mind company does not wait for it to leave."""
    first, second = guests.comes("beside"), guests.comes("beside")
    first.enters()
    second.enters()


def test_who_wants_to_be_alone_is(guests: Guests) -> None:
    """It waits until all have left, and nobody comes in before it has left."""
    first = guests.comes("beside")
    first.enters()
    single = guests.comes("alone")
    single.waits()
    first.leaves()
    single.enters()
    late = guests.comes("beside")
    late.waits()
    single.leaves()
    late.enters()


def test_who_waits_to_be_alone_is_not_passed_by(guests: Guests) -> None:
    """Whoever comes later waits behind it, however many share the room."""
    first = guests.comes("beside")
    first.enters()
    single = guests.comes("alone")
    single.waits()
    late = guests.comes("beside")
    late.waits()
    first.leaves()
    single.enters()
    assert late.locked_out


def test_a_death_leaves_the_room_free(guests: Guests) -> None:
    """Kill -9 of who is in it keeps nobody out."""
    single = guests.comes("alone")
    single.enters()
    single.close()
    guests.comes("alone").enters()
