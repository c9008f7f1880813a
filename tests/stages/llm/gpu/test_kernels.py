from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this machine")

from stages.llm.gpu import launch
from tests.stages.llm.gpu.cases import CASES
from tests.stages.llm.gpu.checks import TOLERANCE, Seen
from tests.stages.llm.gpu.compiled import SHARED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE_S = 280.0


def run(module: str, *arguments: str, **environment: str) -> Any:
    """What a module of these tests writes."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.stages.llm.gpu.{module}", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """What the interpreter says of all cases."""
    return {name: Seen(**values) for name, values in run("interpreted", TRITON_INTERPRET="1").items()}


@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_are_right(name: str, seen: dict[str, Seen]) -> None:
    """The kernels and plain torch both say what arithmetic in float64 says; padding rows are zeros."""
    tolerance = TOLERANCE[CASES[name].dtype]
    assert seen[name].error < tolerance
    assert seen[name].plain_error < tolerance
    assert seen[name].stored


@pytest.mark.parametrize("name", CASES)
def test_interpreted_bits_are_those_of_a_sequence_alone(name: str, seen: dict[str, Seen]) -> None:
    """Company, the cut of a prompt, and splits beside each other or in turn change no bit."""
    assert seen[name].alone
    assert seen[name].beside


@pytest.mark.skipif(sys.platform != "linux", reason="Triton brings NVIDIA's assembler on Linux alone")
def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """The compiler takes them for an H100, in its shared memory, and with all numbers in registers."""
    programs = run("compiled", "90", TRITON_CACHE_DIR=str(tmp_path))

    assert set(programs) == {"write", "reduce", "attend", "attend beside"}
    assert all(used["shared"] <= SHARED[90] for used in programs.values())
    assert [name for name, used in programs.items() if used["stack"]] == []


def test_tiling_depends_on_the_model_alone() -> None:
    """Rows hold whole groups of heads, and the blocks under way fit the shared memory, down to a small card's."""
    for dtype in (torch.float32, torch.bfloat16):
        for group in (1, 3, 8, 71):
            for size in (12, 64, 80, 128, 256):
                cut = launch.tiling(group, size, dtype, 101_376)
                assert cut.rows >= 16
                assert cut.fold >= group
                assert cut.positions * cut.fold == cut.rows
                assert cut.stages >= 1
    assert launch.tiling(4, 128, torch.bfloat16, 232_448).stages > launch.tiling(4, 128, torch.bfloat16, 101_376).stages
