"""The measurements of overload and cancel, each on a small model in programs of its own, small and short."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from apps.bench import cancel as cancel_module
from apps.bench import fairness as fairness_module
from apps.bench import soak as soak_module
from apps.bench.cancel import cancel
from apps.bench.fairness import fairness
from apps.bench.soak import Overwhelmed, soak

DEADLINE_S = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(330)]


@pytest.fixture
def options(small_model: Path) -> list[str]:
    """A small model that answers two at a time, so that little is a flood."""
    model = (f"model.name={small_model}", "model.draft=none", "model.threads=1", "model.batch=2", "model.queue=8")
    return [part for one in (*model, "model.max_wait_s=60") for part in ("--set", one)]


async def test_a_flood_and_a_quiet_tenant_are_told_apart(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quiet tenant is answered with the flood and without, and the flood is refused in types."""
    monkeypatch.setattr(fairness_module, "SETTLE_S", 0.5)
    monkeypatch.setattr(fairness_module, "SESSIONS", 10)
    path = tmp_path / "fairness.json"
    plan = fairness_module.Plan(n=8, rounds=1, interval=0.2, flood=30, tokens=32)

    await asyncio.wait_for(fairness(options, plan, kafka=None, path=path), DEADLINE_S)

    found = json.loads(path.read_text())["outcomes"]["embedded"]
    assert found["alone"]["n"] == found["flooded"]["n"] == 8
    assert found["quiet_not_answered"] == 0
    assert sum(found["flood"].values()) > 0
    assert set(found["flood"]) <= {"completed", "incomplete", "overloaded", "rate_limit_exceeded"}


async def test_a_soak_leaves_nothing_over(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times what can be answered: all turns end, refusals are typed, and in the end nothing is left.

    How long an answer takes and whether memory is flat is for a longer run on a machine of its own.
    """
    monkeypatch.setattr(soak_module, "CALIBRATED_S", 2.0)
    monkeypatch.setattr(soak_module, "WARM_S", 0.5)
    monkeypatch.setattr(soak_module, "SAMPLE_S", 0.5)
    monkeypatch.setattr(soak_module, "BUSY", 6)
    path = tmp_path / "soak.json"
    plan = soak_module.Plan(minutes=0.1, times=5, sessions=40, unread=3, tokens=16, max_wait_s=0.5)

    with suppress(Overwhelmed):
        await asyncio.wait_for(soak(options, plan, path=path), DEADLINE_S)

    found = json.loads(path.read_text())
    ended, refusals, _, _, leftovers = found["verdicts"]
    assert found["offered"] > 0
    assert ended["holds"], ended
    assert refusals["holds"], refusals
    assert leftovers["holds"], leftovers


async def test_what_is_given_up_gives_its_place_free(tmp_path: Path) -> None:
    """A cancel, a client that is gone and a deadline each free the engine; a client that is there hears of it."""
    path = tmp_path / "cancel.json"
    options = ["--set", "model.threads=1"]

    await asyncio.wait_for(cancel(options, cancel_module.Plan(1), kafka=None, path=path), DEADLINE_S)

    found = json.loads(path.read_text())
    measured = {f"embedded: {title}" for title in cancel_module.TITLES.values()}
    assert set(found["place_ms"]) | {missing.partition(": no answer")[0] for missing in found["missing"]} == measured
    assert "embedded: explicit cancel" in found["place_ms"]
    assert "embedded: explicit cancel" in found["word_ms"]
