"""The contract of a bus, which the one in memory and the one in Kafka both keep."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack

import pytest

from pipeline.bus import Bus, Member, Part, Reader
from pipeline.errors import MessageTooLarge, OwnershipLost, TopicMissing
from pipeline.messages import Turn
from pipeline.topics import Topic
from tests.pipeline.buses import (
    DEADLINE,
    FIRST,
    LIMIT,
    MANY,
    ONE,
    PARTITIONS,
    Peer,
    crash,
    eventually,
    fill,
    kafka_bus,
    memory_bus,
    numbers,
    publish,
    settings_for,
    take,
)

NOWHERE = Topic("nowhere", Turn)
PARTS = [Part("many", number) for number in range(PARTITIONS)]


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
async def bus(request: pytest.FixtureRequest) -> AsyncGenerator[Bus, None]:
    """A bus of either kind, with two topics."""
    if request.param == "memory":
        async with memory_bus() as bus:
            yield bus
    else:
        async with kafka_bus(settings_for(request.getfixturevalue("kafka"))) as bus:
            yield bus


# ---- publishing ------------------------------------------------------------------------------------------------------


async def test_records_stand_in_the_order_in_which_they_were_handed_over(bus: Bus) -> None:
    """Nobody awaits the first before handing over the next, and yet each key's records keep their order."""
    sent = [await bus.publish("many", b"%d" % n, key=f"key {n % 7}", headers={}) for n in range(700)]
    await asyncio.wait_for(asyncio.gather(*sent), DEADLINE)
    async with bus.reader(dict.fromkeys(PARTS, 0)) as reader:
        records = await take(reader, 700)

    by_key = defaultdict(list)
    for record in records:
        by_key[record.key].append(int(record.value))
    assert dict(by_key) == {f"key {k}": list(range(k, 700, 7)) for k in range(7)}


async def test_the_future_of_a_publication_is_its_offset(bus: Bus) -> None:
    """Who publishes learns where in its partition the record stands."""
    assert [await publish(bus, ONE, b"x") for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_a_key_has_one_partition(bus: Bus) -> None:
    """All records of a key stand in the same partition, and the keys are spread over several."""
    sent = [await bus.publish("many", b"", key=f"key {n % 40}", headers={}) for n in range(120)]
    await asyncio.wait_for(asyncio.gather(*sent), DEADLINE)
    async with bus.reader(dict.fromkeys(PARTS, 0)) as reader:
        records = await take(reader, 120)

    parts_of = defaultdict(set)
    for record in records:
        parts_of[record.key].add(record.part)
    assert {len(parts) for parts in parts_of.values()} == {1}
    assert len({record.part for record in records}) == PARTITIONS


async def test_a_partition_can_be_chosen(bus: Bus) -> None:
    """A record goes where its publisher says, whatever its key."""
    for number in (2, 0, 2):
        await publish(bus, MANY, b"x", key="same", partition=number)

    assert [await bus.end(part) for part in PARTS] == [1, 0, 2, 0]


async def test_key_value_and_headers_come_back_as_they_were(bus: Bus) -> None:
    """Any text and any bytes make the round trip."""
    headers = {"reply-to": "7", "größe": "大 🙂", "empty": ""}
    await publish(bus, ONE, bytes(range(256)), key="Schlüssel 鍵", headers=headers)
    await publish(bus, ONE, b"", key="")
    async with bus.reader({FIRST: 0}) as reader:
        full, empty = await take(reader, 2)

    assert (full.part, full.offset, full.key, full.value) == (FIRST, 0, "Schlüssel 鍵", bytes(range(256)))
    assert dict(full.headers) == headers
    assert abs(full.timestamp - time.time() * 1000) < 60_000
    assert (empty.key, empty.value, dict(empty.headers)) == ("", b"", {})


async def test_a_record_that_is_too_large_is_refused_by_name(bus: Bus) -> None:
    """The publisher learns how large it was and what would fit, and the next record goes through."""
    with pytest.raises(MessageTooLarge, match=f"too large for topic 'one', which takes at most {LIMIT}") as refused:
        await publish(bus, ONE, bytes(LIMIT + 1))

    assert refused.value.size > LIMIT
    assert await publish(bus, ONE, bytes(LIMIT // 2)) == 0


async def test_an_unknown_topic_is_named_at_once(bus: Bus) -> None:
    """Publishing to, counting, reading and sharing a topic that is not there fails, and says which it is."""
    began = time.monotonic()
    with pytest.raises(TopicMissing, match="nowhere"):
        await publish(bus, NOWHERE, b"")
    with pytest.raises(TopicMissing, match="nowhere"):
        await bus.partitions("nowhere")
    with pytest.raises(TopicMissing, match="nowhere"):
        async with bus.member("g", ["nowhere"], Peer()):
            pass
    with pytest.raises(TopicMissing, match="nowhere"):
        async with bus.reader({Part("nowhere", 0): 0}):
            pass

    assert time.monotonic() - began < 5


# ---- asking ----------------------------------------------------------------------------------------------------------


async def test_a_topic_has_its_own_number_of_partitions_or_the_deployments(bus: Bus) -> None:
    """A topic that says how many it has, has so many."""
    assert (await bus.partitions("many"), await bus.partitions("one")) == (PARTITIONS, 1)


async def test_where_a_key_is_can_be_asked(bus: Bus) -> None:
    """It is where its records are published."""
    for key in ("a", "b", "sess_1", "sess_2"):
        part = await bus.part_of("many", key)
        before = await bus.end(part)
        await publish(bus, MANY, b"", key=key)
        assert await bus.end(part) == before + 1
    with pytest.raises(TopicMissing, match="nowhere"):
        await bus.part_of("nowhere", "a")


async def test_the_end_is_the_next_records_offset(bus: Bus) -> None:
    """The end moves with each record."""
    assert await bus.end(FIRST) == 0
    await fill(bus, ONE, 3)
    assert await bus.end(FIRST) == 3


async def test_an_offset_can_be_found_by_time(bus: Bus) -> None:
    """The first record that is not older than a time, or the end."""
    await fill(bus, ONE, 3)
    await asyncio.sleep(0.05)
    between = time.time_ns() // 1_000_000
    await asyncio.sleep(0.05)
    await fill(bus, ONE, 3)

    assert await bus.offset_at(FIRST, 0) == 0
    assert await bus.offset_at(FIRST, between) == 3
    assert await bus.offset_at(FIRST, between + 60_000) == 6


async def test_a_bus_that_is_there_passes_the_check(bus: Bus) -> None:
    """The check returns."""
    await bus.check()


# ---- reading alone ---------------------------------------------------------------------------------------------------


async def test_a_reader_begins_at_an_offset(bus: Bus) -> None:
    """Reading goes from the given offset to the end, and on with what is published then."""
    await fill(bus, ONE, 10)
    async with bus.reader({FIRST: 4}) as reader:
        assert numbers(await take(reader, 6)) == [4, 5, 6, 7, 8, 9]
        await fill(bus, ONE, 1, start=10)
        assert numbers(await take(reader, 1)) == [10]


async def test_a_reader_begins_at_the_present_end(bus: Bus) -> None:
    """None brings what is published from now on, and nothing before."""
    await fill(bus, ONE, 10)
    async with bus.reader({FIRST: None}) as reader:
        await fill(bus, ONE, 2, start=10)
        assert numbers(await take(reader, 2)) == [10, 11]


async def test_readers_do_not_share(bus: Bus) -> None:
    """Each reader gets all, of several partitions each from where it says."""
    for part in PARTS:
        await fill(bus, MANY, 5, partition=part.number)
    start = {PARTS[0]: 0, PARTS[1]: 3, PARTS[2]: None}
    async with bus.reader(start) as one, bus.reader(start) as other:
        for reader in (one, other):
            records = await take(reader, 7)
            assert {(record.part, int(record.value)) for record in records} == {
                *((PARTS[0], n) for n in range(5)),
                *((PARTS[1], n) for n in range(3, 5)),
            }
            assert not await reader.poll(limit=10, timeout=0.05)


async def test_a_poll_brings_no_more_than_asked_for(bus: Bus) -> None:
    """What is beyond the limit comes with the next poll, in order."""
    await fill(bus, ONE, 10)
    async with bus.reader({FIRST: 0}) as reader:
        assert numbers(await take(reader, 3, limit=3)) == [0, 1, 2]
        assert numbers(await take(reader, 7, limit=2)) == [3, 4, 5, 6, 7, 8, 9]


async def test_a_poll_without_records_returns_in_time(bus: Bus) -> None:
    """Nothing comes, and the poll says so when its time is over."""
    async with bus.reader({FIRST: 0}) as reader:
        began = time.monotonic()
        assert not await reader.poll(limit=10, timeout=0.2)

    assert 0.15 < time.monotonic() - began < 5


async def test_a_busy_partition_does_not_starve_the_others(bus: Bus) -> None:
    """A record in a quiet partition comes soon, however much waits in another."""
    await fill(bus, MANY, 500, partition=0)
    await fill(bus, MANY, 1, partition=1, start=1000)
    async with bus.reader({PARTS[0]: 0, PARTS[1]: 0}) as reader:
        seen: list[int] = []
        async with asyncio.timeout(DEADLINE):
            while 1000 not in seen:
                seen += numbers(await reader.poll(limit=10, timeout=1.0))

    assert len(seen) < 500


# ---- sharing ---------------------------------------------------------------------------------------------------------


async def test_a_lone_member_owns_everything_before_it_polls(bus: Bus) -> None:
    """When the group is joined, the listener knows all that is owned."""
    peer = Peer()
    async with bus.member("g", ["many", "one"], peer):
        assert peer.calls == [("assigned", frozenset({*PARTS, FIRST}))]


async def test_members_share_and_one_that_leaves_hands_over(bus: Bus) -> None:
    """Every partition has one owner at any time; who is left in the end owns all."""
    one, other = Peer(), Peer()
    async with bus.member("g", ["many"], one):
        async with bus.member("g", ["many"], other):
            await eventually(lambda: len(one.parts) == len(other.parts) == PARTITIONS // 2)
            assert not one.parts & other.parts
        await eventually(lambda: len(one.parts) == PARTITIONS)

    assert [what for what, _ in one.calls] == ["assigned", "revoked", "assigned", "revoked", "assigned"]


async def test_what_is_kept_through_a_rebalance_is_not_moved(bus: Bus) -> None:
    """A third member takes as little as possible from the two before it."""
    peers = [Peer(), Peer(), Peer()]
    async with AsyncExitStack() as joined:
        for peer in peers[:2]:
            await joined.enter_async_context(bus.member("g", ["many"], peer))
        await eventually(lambda: [len(peer.parts) for peer in peers[:2]] == [2, 2])
        before = [peer.parts for peer in peers[:2]]
        await joined.enter_async_context(bus.member("g", ["many"], peers[2]))
        await eventually(lambda: all(peer.calls[-1][0] == "assigned" for peer in peers))
        await eventually(lambda: sum(len(peer.parts) for peer in peers) == PARTITIONS)
        assert peers[0].parts <= before[0]
        assert peers[1].parts <= before[1]


async def test_groups_do_not_share_with_each_other(bus: Bus) -> None:
    """Each group gets every record."""
    await fill(bus, MANY, 20)
    async with bus.member("g", ["many"], Peer()) as one, bus.member("h", ["many"], Peer()) as other:
        assert sorted(numbers(await take(one, 20))) == sorted(numbers(await take(other, 20))) == list(range(20))


async def test_a_member_that_leaves_is_followed_from_its_commit_on(bus: Bus) -> None:
    """What was committed is not seen again, what was not is."""
    await fill(bus, ONE, 10)
    async with bus.member("g", ["one"], Peer()) as member:
        await take(member, 8)
        await member.commit({FIRST: 5})
    async with bus.member("g", ["one"], Peer()) as member:
        assert numbers(await take(member, 5)) == [5, 6, 7, 8, 9]


async def test_a_note_goes_with_a_commit_to_the_next_owner(bus: Bus) -> None:
    """It is there before anything is read, the latest commit's counts, and one without a note takes it away."""
    await fill(bus, ONE, 10)
    async with bus.member("g", ["one"], Peer()) as member:
        assert await member.note(FIRST) == ""
        await member.commit({FIRST: 3}, {FIRST: "first"})
        await member.commit({FIRST: 3}, {FIRST: "x" * 4000})
    async with bus.member("g", ["one"], Peer()) as member, bus.member("h", ["one"], Peer()) as stranger:
        assert await member.note(FIRST) == "x" * 4000
        assert await stranger.note(FIRST) == ""
        assert numbers(await take(member, 1)) == [3]
        await member.commit({FIRST: 4})
        assert await member.note(FIRST) == ""


async def test_a_member_that_dies_before_its_commit_loses_nothing(bus: Bus) -> None:
    """All that a dead member had taken and not committed is given to another."""
    await fill(bus, ONE, 10)
    async with bus.member("g", ["one"], Peer()) as dying:
        await take(dying, 10)
        await dying.commit({FIRST: 3})
        await crash(dying)
        async with bus.member("g", ["one"], Peer()) as heir:
            assert numbers(await take(heir, 7)) == [3, 4, 5, 6, 7, 8, 9]


async def test_work_in_hand_can_be_committed_while_it_is_revoked(bus: Bus) -> None:
    """The revocation is the last moment for a commit, and the next owner begins after it."""
    members: list[Member] = []

    async def commit_all() -> None:
        await members[0].commit(dict.fromkeys(peer.parts, 5))

    for part in PARTS:
        await fill(bus, MANY, 6, partition=part.number)
    peer = Peer(commit_all)
    async with bus.member("g", ["many"], peer) as member:
        members.append(member)
        await take(member, 6 * PARTITIONS)
        other = Peer()
        async with bus.member("g", ["many"], other) as newcomer:
            await eventually(lambda: len(other.parts) == 2)
            records = await take(newcomer, 2)

    assert {record.offset for record in records} == {5}


async def test_a_partition_that_comes_back_can_be_gone_on_with(bus: Bus) -> None:
    """With a seek from within the assignment, nothing that is in hand comes a second time."""
    await fill(bus, ONE, 4)

    class GoingOn(Peer):
        async def assigned(self, parts: Collection[Part]) -> None:
            """Go on after what is in hand."""
            await super().assigned(parts)
            for member in members:
                member.seek(FIRST, 3)

    members: list[Member] = []
    peer = GoingOn()
    async with bus.member("g", ["one"], peer) as member:
        members.append(member)
        await take(member, 3)
        polling = asyncio.create_task(take(member, 1))
        async with bus.member("g", ["one"], Peer()):
            await eventually(lambda: len(peer.calls) >= 3)
        records = await polling

    assert numbers(records) == [3]


async def test_a_commit_of_another_members_partition_is_refused(bus: Bus) -> None:
    """Who does not own a partition cannot move the group's offset in it."""
    one, other = Peer(), Peer()
    async with bus.member("g", ["many"], one) as member, bus.member("g", ["many"], other):
        await eventually(lambda: len(one.parts) == len(other.parts) == 2)
        with pytest.raises(OwnershipLost, match="'g'"):
            await member.commit({min(other.parts): 0})


# ---- pausing and seeking ---------------------------------------------------------------------------------------------


async def test_a_paused_partition_is_left_out_and_comes_back_whole(bus: Bus) -> None:
    """The others go on meanwhile; afterwards all that was there comes, in order."""
    await fill(bus, MANY, 20, partition=0)
    await fill(bus, MANY, 5, partition=1, start=100)
    async with bus.member("g", ["many"], Peer()) as member:
        first = await take(member, 3, limit=3)
        member.pause(first[0].part)
        member.pause(PARTS[0])
        seen = [*numbers(first)]
        for _ in range(8):
            records = await member.poll(limit=100, timeout=0.05)
            assert PARTS[0] not in {record.part for record in records}
            seen += numbers(records)
        for part in PARTS:
            member.resume(part)
        seen += numbers(await take(member, 25 - len(seen)))

    assert [n for n in seen if n < 100] == list(range(20))
    assert [n for n in seen if n >= 100] == list(range(100, 105))


async def test_a_resumed_partition_wakes_a_poll_that_waits(bus: Bus) -> None:
    """What was held back comes at once, not when the poll's time is over."""
    async with bus.member("g", ["one"], Peer()) as member:
        await fill(bus, ONE, 2)
        await take(member, 1)
        member.pause(FIRST)
        waiting = asyncio.create_task(member.poll(limit=10, timeout=DEADLINE))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        began = time.monotonic()
        member.resume(FIRST)
        assert numbers(await asyncio.wait_for(waiting, DEADLINE)) == [1]

    assert time.monotonic() - began < 5


async def test_a_pause_outlasts_a_rebalance(bus: Bus) -> None:
    """A partition that comes back is still paused."""
    peer = Peer()
    async with bus.member("g", ["one"], peer) as member:
        member.pause(FIRST)
        async with bus.member("g", ["one"], Peer()):
            await eventually(lambda: len(peer.calls) >= 3)
        await eventually(lambda: peer.parts == {FIRST})
        await fill(bus, ONE, 1)
        assert not await member.poll(limit=10, timeout=0.3)
        member.resume(FIRST)
        assert numbers(await take(member, 1)) == [0]


async def test_a_member_can_read_again_and_skip(bus: Bus) -> None:
    """A seek decides what comes next, backwards and forwards."""
    await fill(bus, ONE, 10)
    async with bus.member("g", ["one"], Peer()) as member:
        await take(member, 6, limit=2)
        member.seek(FIRST, 2)
        assert numbers(await take(member, 2)) == [2, 3]
        member.seek(FIRST, 9)
        assert numbers(await take(member, 1)) == [9]


async def test_the_lag_is_what_was_not_yet_given(bus: Bus) -> None:
    """Records that were polled no longer count, committed or not."""
    await fill(bus, MANY, 30)
    async with bus.member("g", ["many"], Peer()) as member:
        assert await member.lag() == 30
        await take(member, 12, limit=5)
        assert await member.lag() == 18


async def test_an_empty_reader_is_patient(bus: Bus) -> None:
    """A reader of nothing reads nothing."""

    async def poll(reader: Reader) -> int:
        return len(await reader.poll(limit=1, timeout=0.01))

    async with bus.reader({}) as reader:
        assert await poll(reader) == 0


# ---- reading a stretch -----------------------------------------------------------------------------------------------


async def test_a_stretch_is_read_to_its_end(bus: Bus) -> None:
    """All from the first offset to the one before the last, with what is in them, and nothing of what follows."""
    await fill(bus, ONE, 10)
    records = await bus.span(FIRST, 3, 8)
    assert numbers(records) == [3, 4, 5, 6, 7]
    assert [(record.part, record.offset, record.key) for record in records[:2]] == [(FIRST, 3, "3"), (FIRST, 4, "4")]


async def test_an_empty_stretch_is_there_at_once(bus: Bus) -> None:
    """Nobody waits for what comes later."""
    await fill(bus, ONE, 2)
    assert not await bus.span(FIRST, 2, 2)


async def test_stretches_are_read_at_the_same_time_and_one_after_the_other(bus: Bus) -> None:
    """Of several partitions, twice of one, and again when the first are done."""
    parts = [Part("many", number) for number in range(PARTITIONS)]
    for part in parts:
        await fill(bus, MANY, 500, partition=part.number)
    for _ in range(2):
        async with asyncio.timeout(DEADLINE):
            found = await asyncio.gather(*(bus.span(part, n, 500 - n) for n, part in enumerate([*parts, parts[0]])))
        assert [numbers(records) for records in found] == [list(range(n, 500 - n)) for n in range(PARTITIONS + 1)]
