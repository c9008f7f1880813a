"""What stands in the topic of dead letters, and what of it is listed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import pytest

from apps.dead_letters import Id, Survey, Wanted, fetch, survey
from pipeline.headers import RETRIED
from pipeline.memory import MemoryBus
from pipeline.topics import DEAD_LETTERS, TURNS
from tests.apps.letters import a_letter, post
from tests.pipeline.fakes import make_turn, published


@pytest.fixture
async def bus() -> AsyncGenerator[MemoryBus, None]:
    """A bus with the whole route."""
    async with MemoryBus(partitions=2) as bus:
        yield bus


async def test_letters_are_listed_in_their_order_without_their_values(bus: MemoryBus) -> None:
    """The newest stands last; of the record itself there is only its size."""
    for turn in ("t1", "t2", "t3"):
        await post(bus, a_letter(turn))
    found = await survey(bus)

    assert [(str(letter.id), letter.dead.turn, letter.kind) for letter in found.letters] == [
        ("0:0", "t1", "KeyError"),
        ("0:1", "t2", "KeyError"),
        ("0:2", "t3", "KeyError"),
    ]
    assert {letter.size for letter in found.letters} == {len(TURNS.encode(make_turn("t1")))}
    assert {letter.dead.value for letter in found.letters} == {b""}


async def test_a_topic_without_letters_is_an_empty_list(bus: MemoryBus) -> None:
    """Nothing there is nothing found, at once."""
    assert await survey(bus) == Survey()


async def test_the_newest_are_kept_and_all_are_counted(bus: MemoryBus) -> None:
    """A limit keeps the last ones; the numbers tell of the others."""
    for number in range(5):
        await post(bus, a_letter(f"t{number}"))
    found = await survey(bus, limit=2)
    assert [letter.dead.turn for letter in found.letters] == ["t3", "t4"]
    assert (found.total, found.matching) == (5, 5)


@pytest.mark.parametrize(
    ("wanted", "turns"),
    [
        (Wanted(stage="text"), ["t1", "t2"]),
        (Wanted(stage="llm"), ["t2", "t3"]),
        (Wanted(stage="text+llm"), ["t2"]),
        (Wanted(session="s"), ["t1", "t2"]),
        (Wanted(session="other"), ["t3"]),
        (Wanted(since=int(time.time() * 1000) + 3_600_000), []),
        (Wanted(since=int(time.time() * 1000) - 3_600_000), ["t1", "t2", "t3"]),
    ],
)
async def test_what_is_asked_for_is_listed(bus: MemoryBus, wanted: Wanted, turns: list[str]) -> None:
    """By stage, also one in a chain; by session, also where only the key of its turn is known; by time."""
    await post(bus, a_letter("t1"))
    await post(bus, a_letter("t2", stage="text+llm"))
    await post(bus, a_letter("t3", stage="llm", value=b"\xc1", session="other/t3"))
    found = await survey(bus, wanted)
    assert [letter.dead.turn for letter in found.letters] == turns
    assert found.total == 3


async def test_what_is_no_letter_is_told_and_hinders_nothing(bus: MemoryBus) -> None:
    """Garbage among the letters is counted by its place, and cannot be shown as one."""
    await published(bus, DEAD_LETTERS.name, b"\xc1", key="", headers={})
    await published(bus, DEAD_LETTERS.name, b"", key="", headers={RETRIED: "nonsense"})
    await post(bus, a_letter())
    found = await survey(bus)
    assert (found.strange, len(found.letters)) == ([Id(0, 0)], 1)
    assert await fetch(bus, Id(0, 0)) is None
    assert await fetch(bus, Id(0, 99)) is None
    assert await fetch(bus, Id(7, 0)) is None


@pytest.mark.parametrize(("text", "at"), [("0:17", Id(0, 17)), ("17", Id(0, 17)), ("2:0", Id(2, 0))])
def test_a_number_is_read(text: str, at: Id) -> None:
    """With or without its partition."""
    assert Id.parse(text) == at


@pytest.mark.parametrize("text", ["", ":", "a", "0:", ":1x", "-1", "0:-1", "1:2:3"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """Anything else is named."""
    with pytest.raises(ValueError, match="0:17"):
        Id.parse(text)
