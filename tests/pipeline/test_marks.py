"""The note beside a commit: what is written into it is read again, it is bounded, and foreign ones do no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.marks import NOTE_BYTES, Marks

TURNS = st.tuples(st.text(max_size=8), st.text(max_size=8))


@given(st.dictionaries(TURNS, st.integers(0, 2**62), max_size=20), st.integers(0, 2**62))
def test_what_is_noted_is_known_to_the_next_owner(settled: dict[tuple[str, str], int], committed: int) -> None:
    """For each stream whether an offset is settled, for all offsets from the commit on; to the one after that, too."""
    marks = Marks()
    for turn, offset in settled.items():
        marks.settle(turn, offset)
    heir = Marks(marks.note(committed))
    second = Marks(heir.note(committed))

    for turn, offset in settled.items():
        for owner in (heir, second):
            assert owner.covers(turn, offset) == (offset >= committed)
            assert not owner.covers(turn, offset + 1)
            assert not owner.covers((turn[0] + "x", turn[1]), offset)


def test_a_stream_is_settled_up_to_where_it_came_furthest() -> None:
    """Whatever the order in which that is heard; what is committed needs no mark."""
    marks = Marks()
    for offset in (5, 9, 7):
        marks.settle(("s", "a"), offset)
    marks.settle(("s", "b"), 6)
    heir = Marks(marks.note(7))

    assert heir.covers(("s", "a"), 9)
    assert not heir.covers(("s", "b"), 6)
    assert heir.inherited == 9
    assert marks.note(10) == ""


def test_names_are_not_confused_by_where_they_are_cut() -> None:
    """A session and a turn are two things, also where they read the same together."""
    marks = Marks()
    marks.settle(("ab", "c"), 5)

    assert not Marks(marks.note(0)).covers(("a", "bc"), 5)


def test_a_note_has_room_for_hundreds_and_never_more_than_kafka_takes(caplog: pytest.LogCaptureFixture) -> None:
    """Of too many streams those that came furthest are told, and the operator of the others, once."""
    few, many = Marks(), Marks()
    for n in range(300):
        few.settle(("s", str(n)), 10**12 + n)
    for n in range(5000):
        many.settle(("s", str(n)), 10**12 + 50 * n)

    assert len(few.note(10**12)) <= NOTE_BYTES
    assert not caplog.records
    assert all(Marks(few.note(10**12)).covers(("s", str(n)), 10**12 + n) for n in range(300))

    note = many.note(10**12)
    assert NOTE_BYTES * 0.9 < len(note) <= NOTE_BYTES
    assert many.note(10**12) == note
    assert Marks(note).covers(("s", "4999"), 10**12 + 50 * 4999)
    assert not Marks(note).covers(("s", "0"), 10**12)
    assert [record.message for record in caplog.records if "5000 streams" in record.message] != []
    assert len(caplog.records) == 1


@given(st.text(max_size=50) | st.binary(max_size=40).map(lambda data: data.decode("latin-1")))
def test_a_foreign_note_does_not_count(note: str) -> None:
    """What another program has written there stops nothing."""
    Marks(note).covers(("s", "t"), 5)


def test_a_note_that_cannot_be_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The operator sees what stood there."""
    assert Marks("hello there").inherited == -1
    assert "hello there" in caplog.text
