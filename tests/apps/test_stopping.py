"""How a program ends that is told to while it is still starting: at once, quietly, and with the status of its kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 40
AT_ONCE_S = 10
"""Much less than the endless work, and more than a busy machine needs."""

SLOW = """
import sys, time
import apps.parts
from apps.cli import main

def endless(*_):
    print("in the middle of it", flush=True)
    time.sleep(600)

setattr(apps.parts, "{name}", endless)
sys.argv = ["penstock", "up", "--port", "0", *{arguments}]
main()
"""


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python with `arguments`, once it has said a line."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "KAFKA_"))}
    command = [sys.executable, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env={**clean, **environment}, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline(), process.stderr.read()
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, float]:
    """Send a signal, and return the exit status, what was said on standard error, and the seconds that it took."""
    began = monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said, monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize(
    ("name", "arguments"), [("_loaded", []), ("_without_weights", ["--model", "instant"])], ids=["model", "tokenizer"]
)
def test_a_load_is_not_waited_for(number: signal.Signals, name: str, arguments: list[str]) -> None:
    """Told to stop while the model loads, which nothing can stop in its middle, the program ends well, and at once."""
    with running("-c", SLOW.format(name=name, arguments=arguments)) as process:
        status, said, seconds = told(process, number)
    assert status == 0, said
    assert seconds < AT_ONCE_S
    assert "Traceback" not in said


def test_an_interrupted_import_is_quiet(tmp_path: Path) -> None:
    """Ctrl-C while the command's own parts are still being imported brings no traceback."""
    (tmp_path / "typer.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    with running("-m", "apps.cli", "--help", PYTHONPATH=str(tmp_path)) as process:
        assert told(process, signal.SIGINT)[:2] == (130, "")
