"""Run a program that cannot outlive this process, however this process ends.

`Guarded` starts the program under a small watcher (this file, run as a script). The watcher ends it when the pipe from
the parent closes, and the kernel closes that pipe also after kill -9. PR_SET_PDEATHSIG alone would not
do: it goes by the *thread* that started the child, and a fixture may start one from a thread that ends long before the
tests do. The watcher's starting thread lives as long as it does, so there the kernel's signal is sound, and covers the
death of the watcher itself.

Imports nothing outside the standard library, so that a watcher starts in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
LINGER_S = 5.0


class Guarded:
    """A child process with its output in a file; it dies with its parent.

    Args:
        argv: The program and its arguments.
        log: Where its output goes, appended.
        data: A folder that shall not outlive this process either; whoever stops the program in good order removes it.
    """

    def __init__(self, argv: Sequence[str], log: Path, *, data: Path | None = None) -> None:
        with log.open("ab") as out:
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which stops this in good order.
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", __file__, str(data or ""), *argv],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs still."""
        return self._watcher.poll() is None

    def kill(self) -> None:
        """Kill -9, at once; return when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self, timeout_s: float) -> None:
        """Ask it to end, and after `timeout_s` make it."""
        try:
            self._end(signal.SIGTERM, timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def _end(self, number: signal.Signals, timeout_s: float = LINGER_S) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._watcher.pid, number)  # its session is its group: the watcher and the program
            self._watcher.wait(timeout_s)
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent's thread ends (Linux; elsewhere the pipe must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent(program: subprocess.Popen[bytes], orphaned: threading.Event) -> None:
    """Wait till the pipe from the parent closes, then end `program`."""
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: this returns when nobody holds the other end
    orphaned.set()
    program.terminate()
    time.sleep(LINGER_S)
    program.kill()


def watch(data: str, argv: Sequence[str]) -> int:
    """Run `argv` until it ends or the parent does, and return its exit status; an orphan's `data` is removed."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # sent to the group, meant for the program
    # No second thread runs yet, so the function before exec is safe.
    program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)  # noqa: PLW1509
    orphaned = threading.Event()
    threading.Thread(target=end_with_parent, args=(program, orphaned), daemon=True).start()
    status = program.wait()
    if data and orphaned.is_set():
        shutil.rmtree(data, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1], sys.argv[2:]))
