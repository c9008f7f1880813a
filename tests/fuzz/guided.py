"""The same targets under atheris, which looks for inputs that reach code not reached before. An extra of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from rich.console import Console

DEADLINE_S = 3600


def guided(counts: Mapping[str, int], console: Console) -> int:
    """Throw so many inputs at each target, in a process of its own: libFuzzer ends the one that it runs in."""
    wrong = 0
    for name, count in counts.items():
        console.print(f"{name}: {count:,} inputs", highlight=False)
        command = [sys.executable, "-m", "tests.fuzz.one", name, f"-runs={count}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        if done.returncode:
            wrong += 1
            console.print(done.stdout + done.stderr, highlight=False, markup=False)
    console.print(f"{sum(counts.values()):,} inputs, {wrong} of {len(counts)} targets failed", highlight=False)
    return 1 if wrong else 0
