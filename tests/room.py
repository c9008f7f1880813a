"""Who wants the machine alone gets it, among tests that run beside each other in several processes.

A lock of readers and writers in a file: tests enter together, or one alone. Who waits to be alone lets nobody else in
before, so that it is not waited for without end. Knows nothing of pytest.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

DOOR, ROOM = 0, 1
"""Places in the file that are locked: the door while somebody enters, the room while somebody is in it."""


@contextlib.contextmanager
def entered(path: Path, *, alone: bool) -> Iterator[None]:
    """Be in the room that the file `path` stands for meanwhile, alone or beside others; waits until that may be.

    A process can be in it once. The lock ends with the process, however that ends.
    """
    with path.open("a+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, DOOR)
        fcntl.lockf(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, 1, ROOM)
        fcntl.lockf(file, fcntl.LOCK_UN, 1, DOOR)
        yield
