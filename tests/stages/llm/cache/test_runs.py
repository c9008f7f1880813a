"""What the last turns of sessions left, and in which blocks."""

from __future__ import annotations

from stages.llm.cache.runs import Run, Runs


def run(number: int) -> Run:
    """The run of one session."""
    return Run(b"", (number,), float(number))


def test_a_run_goes_with_its_blocks() -> None:
    """Of a block in which several lie the latest goes; what lay in a lost block is no longer whole."""
    runs = Runs(8)
    runs.remember("a", run(1), [1, 2])
    runs.remember("b", run(2), [1, 3])

    assert (runs.due(1), runs.due(2)) == (("b", run(2)), ("a", run(1)))
    runs.drop(2)
    assert [scope for scope, _ in runs.latest_first()] == ["b"]
    runs.drop(3)
    assert runs.due(1) is None


def test_runs_that_lie_in_others_blocks_do_not_pile_up() -> None:
    """The same text in ever new sessions leaves as many runs as there may be, the latest ones."""
    runs = Runs(3)
    for number in range(100):
        runs.remember(f"s{number}", run(number), [1])

    assert [scope for scope, _ in runs.latest_first()] == ["s99", "s98", "s97"]
