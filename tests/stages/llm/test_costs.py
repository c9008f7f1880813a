"""A table of costs, corrected by what steps really take."""

from __future__ import annotations

import pytest

from stages.llm.costs import Costs
from stages.llm.models.model import LoadedModel
from stages.llm.timing import measure


def test_cost_between_the_points() -> None:
    """Between two points the cost is on their line, below the first it is the first's, beyond the last it goes on."""
    costs = Costs([(4, 1.0), (8, 2.0), (16, 3.0)], sequence=0.5)

    assert [costs.step(0, rows) for rows in (1, 4, 6, 8, 12, 16, 24)] == [1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    assert costs.step(3, 8) == 3.5


def test_rows_come_in_tiles() -> None:
    """All rows of a tile cost the same."""
    costs = Costs([(4, 1.0), (8, 2.0)], tile=4)

    assert [costs.step(1, rows) for rows in range(1, 9)] == [1.0] * 4 + [2.0] * 4


def test_each_step_seen_counts_at_once() -> None:
    """What was told of a size before is no longer told once a step was seen, of that size or of another."""
    costs = Costs([(4, 1.0), (8, 2.0)])
    before = [costs.step(1, rows) for rows in (4, 8)]

    costs.saw(1, 8, 4.0)

    assert all(costs.step(1, rows) > known for rows, known in zip((4, 8), before, strict=True))


def test_a_disturbed_measurement_is_seen_as_such() -> None:
    """A point that cost more than a larger one was disturbed."""
    assert Costs([(4, 9.0), (8, 2.0), (16, 3.0)]).step(1, 4) == 2.0


def test_a_slower_machine_is_slower_at_all_sizes() -> None:
    """What steps of one size take tells of the others, too."""
    costs = Costs([(4, 1.0), (8, 2.0), (16, 3.0)])

    for _ in range(100):
        costs.saw(1, 4, 2.0)

    assert costs.step(1, 4) == pytest.approx(2.0, rel=0.01)
    assert 2.5 < costs.step(1, 16) < 6.5


def test_a_size_that_was_measured_wrong_is_learned() -> None:
    """Where one size costs more than was measured, and the other does not, both are known after some steps."""
    costs = Costs([(4, 1.0), (16, 2.0)])

    for _ in range(300):
        costs.saw(1, 4, 1.0)
        costs.saw(1, 16, 5.0)

    assert costs.step(1, 4) == pytest.approx(1.0, rel=0.2)
    assert costs.step(1, 16) == pytest.approx(5.0, rel=0.2)


def test_a_sleep_is_not_a_cost() -> None:
    """One step that took a thousand times as long says little."""
    costs = Costs([(4, 1.0), (16, 2.0)])

    costs.saw(1, 4, 1000.0)

    assert costs.step(1, 4) < 1.5
    for _ in range(20):
        costs.saw(1, 4, 1.0)
    assert costs.step(1, 4) == pytest.approx(1.0, rel=0.1)


def test_a_model_is_measured(model: LoadedModel) -> None:
    """A real model's steps cost time, larger ones no less."""
    costs = measure(model, patience_s=0.0)

    assert 0 < costs.step(1, 1) <= costs.step(1, 300)
    assert costs.step(1, 1) <= costs.step(16, 16)
