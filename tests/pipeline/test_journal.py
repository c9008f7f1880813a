"""Claims, fences and what is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus import Part, Record
from pipeline.headers import CLAIM, EPOCH, TURN
from pipeline.journal import Fence, claim, read_back, under
from pipeline.memory import MemoryBus
from pipeline.messages import Tokens
from pipeline.topics import TOKENS
from tests.pipeline.fakes import ids_of, published

PART = Part("tokens", 1)


async def say(bus: MemoryBus, epoch: int, index: int, token: int) -> None:
    """Publish one token under `epoch`."""
    value = TOKENS.encode(Tokens("s", "t", index, (token,)))
    await published(bus, "tokens", value, key="s", headers=under(epoch, {}), partition=1)


async def test_only_what_stands_before_the_claim_is_read_back() -> None:
    """A former owner's tokens count up to the claim, and not behind it."""
    async with MemoryBus(partitions=2) as bus:
        old = await claim(bus, PART, "old")
        await say(bus, old, 0, 10)
        await say(bus, old, 1, 11)
        new = await claim(bus, PART, "new")
        await say(bus, old, 2, 666)
        back = await read_back(bus, TOKENS, PART, since=0, epoch=new)

    assert ids_of(back["s", "t"]) == [10, 11]


async def test_a_zombie_between_two_claims_is_not_read_back() -> None:
    """What the first owner said after the second's claim does not reach the third."""
    async with MemoryBus(partitions=2) as bus:
        first = await claim(bus, PART, "first")
        await say(bus, first, 0, 10)
        second = await claim(bus, PART, "second")
        await say(bus, first, 1, 666)
        await say(bus, second, 1, 11)
        third = await claim(bus, PART, "third")
        back = await read_back(bus, TOKENS, PART, since=0, epoch=third)

    assert ids_of(back["s", "t"]) == [10, 11]


async def test_an_empty_journal_is_read_back_at_once() -> None:
    """The first owner finds nothing, and does not wait for it."""
    async with MemoryBus(partitions=2) as bus:
        assert not await read_back(bus, TOKENS, PART, since=0, epoch=await claim(bus, PART, "first"))


async def test_a_record_that_nobody_can_read_cuts_its_turn_alone(caplog: pytest.LogCaptureFixture) -> None:
    """What stands before it counts, what its turn said after it does not, and other turns are whole."""
    async with MemoryBus(partitions=2) as bus:
        old = await claim(bus, PART, "old")
        await say(bus, old, 0, 10)
        await published(bus, "tokens", b"\xc1", key="s", headers=under(old, {TURN: "t"}), partition=1)
        await say(bus, old, 2, 12)
        other = TOKENS.encode(Tokens("s", "other", 0, (7,)))
        await published(bus, "tokens", b"", key="", headers={EPOCH: "9" * 5000}, partition=1)
        await published(bus, "tokens", other, key="s", headers=under(old, {}), partition=1)
        back = await read_back(bus, TOKENS, PART, since=0, epoch=await claim(bus, PART, "new"))

    assert (ids_of(back["s", "t"]), ids_of(back["s", "other"])) == ([10], [7])
    assert "none of its messages" in caplog.text


@given(st.lists(st.one_of(st.just("claim"), st.integers(0, 5))))
def test_at_any_point_one_owner_is_heard(script: list[str | int]) -> None:
    """Whatever claims and publishes in whatever order, all that passes was said under the newest claim."""
    fence, claims = Fence(), [-1]
    for offset, action in enumerate(script):
        if action == "claim":
            assert not fence.passes(Record(PART, offset, 0, "", b"", {CLAIM: "x"}))
            claims.append(offset)
        else:
            epoch = claims[int(action) % len(claims)]
            record = Record(PART, offset, 0, "", b"", {EPOCH: str(epoch)} if epoch >= 0 else {})
            assert fence.passes(record) == (epoch in (-1, claims[-1]))
