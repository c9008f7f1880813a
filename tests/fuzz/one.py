"""`python -m tests.fuzz.one NAME -runs=N`: one target under atheris; the other arguments are libFuzzer's."""

from __future__ import annotations

import sys

import atheris
from hypothesis import HealthCheck, given, settings

with atheris.instrument_imports(include=["apps", "pipeline"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz it; libFuzzer ends the process."""
    name = sys.argv.pop(1)
    (target,) = [one for one in TARGETS if one.name == name]

    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def take(value: object) -> None:
        target.take(value)

    atheris.Setup(sys.argv, take.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
    atheris.Fuzz()


if __name__ == "__main__":
    main()
