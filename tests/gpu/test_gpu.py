from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from stages.llm.gpu.graphs import Call, Capture
from tests.gpu import fast, right
from tests.gpu.__main__ import findings
from tests.gpu.report import Finding
from tests.stages.llm.gpu.cases import CPU

pytestmark = pytest.mark.slow
on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU; `python -m tests.gpu` tells more on a machine with one"
)
Check = Callable[[torch.device, Path], Iterator[Finding]]


def kernels(device: torch.device, _folder: Path) -> Iterator[Finding]:
    """The kernels need no model."""
    return right.kernels(device)


@on_a_gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", [kernels, right.answers, right.company, right.graphs])
def test_right_on_a_gpu(check: Check, tmp_path: Path) -> None:
    """Kernels, answers, bits and graphs are as they must be."""
    assert [one for one in check(torch.device("cuda"), tmp_path) if one.right is False] == []


def test_the_check_can_be_run(tmp_path: Path) -> None:
    """The check that waits for a GPU is not broken meanwhile: what of it can be run on the CPU says what it should."""
    found = list(findings(CPU, tmp_path, fast.REHEARSAL))

    assert [one for one in found if one.right is False] == []
    assert sum(one.right is True for one in found) == 5
    assert {one.what for one in found} >= {"step of 1, replayed", "gaps, replayed", "attention", "memory"}


def _unrecorded() -> Capture:
    """What cannot record anything."""

    def record(call: Call) -> Call:
        raise RuntimeError("operation not permitted when stream is capturing")

    return record


def test_steps_that_were_not_replayed_are_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing could be recorded all is launched and right: the check of the graphs says so, and fails."""
    monkeypatch.setattr(right, "capture_for", lambda _device: _unrecorded)

    found = list(right.graphs(CPU, tmp_path))

    assert {one.right for one in found} == {False}
    assert all(one.seen.startswith("0 of ") for one in found)


def test_time_in_which_something_is_done() -> None:
    """What overlaps counts once, and what lies between does not."""
    assert fast.busy([(0.0, 2.0), (1.0, 3.0), (1.5, 2.0), (5.0, 6.0)]) == (4.0, 6.0)
