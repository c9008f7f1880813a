"""The folder in which supervisors are found: a lock and a Unix socket for each. Belongs to one user alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.errors import FolderUnsafe, SupervisorRunning

PRIVATE = 0o700
LOCK_S = 5.0
"""How long to wait for the workers of a former supervisor to be gone."""
POLL_S = 0.05
ASK_S = 2.0
LONGEST_REPORT = 1 << 24


def folder(environ: Mapping[str, str]) -> Path:
    """The runtime folder of this user, made if it is not there.

    Raises:
        FolderUnsafe: others could put something into it.
    """
    base = environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "penstock" if base else Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise FolderUnsafe(str(path))
    return path


def file_name(name: str) -> str:
    """What the files of the supervisor `name` are called: short, for a socket's path has some hundred characters."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:24]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@asynccontextmanager
async def locked(path: Path, name: str) -> AsyncGenerator[int, None]:
    """Hold the lock `path`; gives its descriptor, for workers to inherit.

    So the lock is held until the supervisor *and* the last of its workers are gone, and no two processes can have one
    id, however a supervisor ended.

    Raises:
        SupervisorRunning: it is held.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_S
        while not _taken(fd):
            if time.monotonic() > deadline:
                raise SupervisorRunning(name)
            await asyncio.sleep(POLL_S)
        yield fd
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def told(path: Path, report: Callable[[], bytes]) -> AsyncGenerator[None, None]:
    """Answer whoever connects to the socket `path` with a report meanwhile. The caller holds the lock beside it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                writer.write(report())
                await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 (a name in a folder of our own)
    server = await asyncio.start_unix_server(answer, path)
    try:
        async with server:
            yield
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240


def ask(path: Path) -> bytes | None:
    """The report of the supervisor behind the socket `path`; None if nobody listens there any more.

    Raises:
        TimeoutError: it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(ASK_S)
        try:
            wire.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return None
            raise
        pieces = []
        size = 0
        while size < LONGEST_REPORT and (piece := wire.recv(1 << 16)):
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)
