"""What `penstock bench bus` makes of the records that a system wrote, and of its rounds."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from apps.bench.bus_report import Result, judged, ratios, rows, throughput
from apps.bench.bus_systems import BARE, OURS
from pipeline.bus import Part, Record
from pipeline.messages import Prompt
from pipeline.topics import PROMPTS

FAST, SLOW, MIXED = Result(300.0, 90, True, 50.0), Result(100.0, 90, True, 80.0), Result(150.0, 90, False, 80.0)


def written(*entries: tuple[int, str, int]) -> list[Record]:
    """The prompts of `entries`: when each was written (ms), its session and the number of its turn."""
    return [
        Record(Part(PROMPTS.name, 0), offset, at, session, PROMPTS.encode(Prompt(session, str(turn), ids=(1,))), {})
        for offset, (at, session, turn) in enumerate(entries)
    ]


def test_the_rate_counts_from_the_first_that_were_written() -> None:
    """What came with the first timestamp is the start of the measurement and not part of it."""
    result = judged(written((1000, "a", 0), (1000, "b", 1), (1250, "a", 2), (1500, "b", 3)), spent=0.5)

    assert result == Result(rate=4.0, done=4, ordered=True, cpu_us=125_000.0)


def test_order_is_that_of_each_key() -> None:
    """Other keys may be ahead; a key's own messages may not come backwards, nor one twice."""
    assert judged(written((0, "a", 4), (1, "b", 1), (2, "a", 5)), spent=0.0).ordered
    assert not judged(written((0, "a", 4), (1, "b", 1), (2, "a", 3)), spent=0.0).ordered
    assert not judged(written((0, "a", 4), (1, "a", 4)), spent=0.0).ordered


def test_a_system_that_wrote_nothing() -> None:
    """There is no rate to tell, and no division by zero."""
    assert judged([], spent=0.1)[:3] == (0.0, 0, True)


def test_ratios_are_those_of_the_same_round() -> None:
    """Round by round, ours by the other's; the row has the median with the least and the most."""
    found = {OURS: [FAST, SLOW, FAST], BARE: [SLOW, SLOW, MIXED]}
    [row] = rows({(0.0, 8): found})

    assert ratios(found, BARE) == [3.0, 1.0, 2.0]
    assert row["ratio"] == {BARE: {"median": 2.0, "least": 1.0, "most": 3.0}}
    assert row["ordered"] == {OURS: True, BARE: False}


def test_the_table_tells_who_kept_no_order() -> None:
    """A system whose messages overtook each other is marked beside its rate."""
    shown = Console(file=StringIO(), width=200)
    shown.print(throughput({(1.0, 8): {OURS: [FAST], BARE: [MIXED]}}))
    text = shown.file.getvalue()  # type: ignore[attr-defined]

    assert "awaits 1 ms" in text
    assert "300 (50 µs)" in text
    assert "150 (80 µs, no order)" in text
    assert "2.00 (2.00–2.00)" in text
