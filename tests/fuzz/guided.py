"""The same targets under atheris, which looks for inputs that reach code not reached before. An extra of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from hypothesis import HealthCheck, given, settings
from rich.console import Console

from tests.fuzz.targets import TARGETS, Target

SCRIPT = "from tests.fuzz.guided import fuzz; fuzz()"
DEADLINE_S = 3600


def guided(targets: Sequence[Target], counts: Mapping[str, int], console: Console) -> int:
    """Run each target in a process of its own: libFuzzer ends the one that it runs in."""
    wrong = 0
    for target in targets:
        console.print(f"{target.name}: {counts[target.name]:,} inputs")
        command = [sys.executable, "-c", SCRIPT, target.name, f"-runs={counts[target.name]}", "-verbosity=0"]
        wrong += subprocess.run(command, timeout=DEADLINE_S, check=False).returncode != 0
    console.print(
        f"{sum(counts[target.name] for target in targets):,} inputs, {wrong} of {len(targets)} targets failed"
    )
    return 1 if wrong else 0


def fuzz() -> None:
    """Run the target that the first argument names; the others are libFuzzer's."""
    import atheris

    name = sys.argv.pop(1)
    (target,) = [one for one in TARGETS if one.name == name]

    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def take(value: object) -> None:
        target.take(value)

    atheris.instrument_all()
    atheris.Setup(sys.argv, take.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
    atheris.Fuzz()
