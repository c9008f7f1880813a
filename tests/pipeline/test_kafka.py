"""What is Kafka's own: brokers that vanish, members that are given up, producers that die, records that are deleted."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from pipeline.bus import Part
from pipeline.errors import BusUnavailable, MessageTooLarge, OwnershipLost
from pipeline.kafka import KafkaBus, KafkaSettings, create_topics, describe_topics
from pipeline.kafka.bus import _partition_of
from pipeline.messages import Turn
from pipeline.topics import Topic
from tests.pipeline.buses import (
    DEADLINE,
    FIRST,
    LIMIT,
    MANY,
    ONE,
    PARTITIONS,
    ROUTE,
    Peer,
    crash,
    eventually,
    fill,
    kafka_bus,
    numbers,
    publish,
    settings_for,
    take,
)
from tests.services import KafkaService

pytestmark = pytest.mark.kafka


@pytest.fixture
async def bus(kafka: KafkaService) -> AsyncGenerator[KafkaBus, None]:
    """A bus with topics of its own on the broker that all tests share."""
    async with kafka_bus(settings_for(kafka)) as bus:
        yield bus


async def collect(source: Any, records: list[Any]) -> None:
    """Poll into `records` until cancelled."""
    while True:
        records += await source.poll(limit=100, timeout=0.5)


async def hang(member: Any) -> None:
    """Send no heartbeat any more."""
    member._consumer._coordinator._heartbeat_task.cancel()
    await asyncio.sleep(3.0)


async def patiently(bus: KafkaBus, value: bytes) -> int:
    """Publish, again and again if need be."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await publish(bus, ONE, value)
            except BusUnavailable:
                await asyncio.sleep(0.05)


# ---- the broker ------------------------------------------------------------------------------------------------------


async def test_a_broker_that_is_not_there_is_named_at_the_start(unused_port: int) -> None:
    """The start gives up in time, and says where it looked and what came of it."""
    settings = KafkaSettings(bootstrap=f"127.0.0.1:{unused_port}", start_timeout_ms=600)
    began = time.monotonic()
    with pytest.raises(BusUnavailable, match=rf"Kafka at 127.0.0.1:{unused_port} cannot be reached: .*refused"):
        async with KafkaBus(settings):
            pass

    assert time.monotonic() - began < 5


async def test_a_server_that_is_no_broker_is_told_as_such() -> None:
    """Something listens, but it is not Kafka, or wants TLS or a password: the start does not hang on it."""
    ended: list[asyncio.Future[None]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.get_running_loop().create_future())
        await reader.read()
        writer.close()
        ended[-1].set_result(None)

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(BusUnavailable, match=r"no answer in time"):
            async with KafkaBus(KafkaSettings(bootstrap=f"127.0.0.1:{port}", start_timeout_ms=600)):
                pass
        await asyncio.wait(ended, timeout=DEADLINE)


@pytest.mark.slow
async def test_a_broker_that_dies_and_comes_back_costs_nothing(
    own_kafka: KafkaService, caplog: pytest.LogCaptureFixture
) -> None:
    """What is published meanwhile arrives once and in order, members and readers go on, and both changes are told."""
    got: list[Any] = []
    read: list[Any] = []
    settings = settings_for(own_kafka, session_timeout_ms=20_000)  # a busy machine returns to its group in time
    async with kafka_bus(settings) as bus, AsyncExitStack() as open_:
        member = await open_.enter_async_context(bus.member("g", ["one"], Peer()))
        reader = await open_.enter_async_context(bus.reader({FIRST: 0}))
        polls = [asyncio.create_task(collect(member, got)), asyncio.create_task(collect(reader, read))]
        await fill(bus, ONE, 20)
        await eventually(lambda: len(got) == len(read) == 20)
        await member.commit({FIRST: 10})
        own_kafka.kill()
        sent = [await bus.publish("one", b"%d" % n, key="k", headers={}) for n in range(20, 40)]
        await eventually(lambda: not bus.state.up, "the loss")
        with pytest.raises(BusUnavailable, match=own_kafka.bootstrap):
            await bus.check()
        assert not any(future.done() for future in sent)
        await asyncio.to_thread(own_kafka.restart)
        assert await asyncio.wait_for(asyncio.gather(*sent), 40) == list(range(20, 40))
        await eventually(lambda: bus.state.up, "the return")
        await eventually(lambda: len(got) == len(read) == 40)
        await member.commit({FIRST: 40})
        for poll in polls:
            poll.cancel()
        await asyncio.wait(polls)

    assert numbers(got) == numbers(read) == list(range(40))
    told = [record.getMessage() for record in caplog.records if record.name == "pipeline.kafka.bus"]
    assert ["is lost" in told[0], "is back after" in told[-1]] == [True, True]


@pytest.mark.slow
async def test_what_is_not_acknowledged_in_time_is_given_up_for_good(own_kafka: KafkaService) -> None:
    """The publisher learns it from the future, and none of it appears later; then a new producer takes over."""
    async with kafka_bus(settings_for(own_kafka, delivery_timeout_ms=1000, publish_window=5)) as bus:
        assert await publish(bus, ONE, b"0") == 0
        own_kafka.kill()
        sent = [await bus.publish("one", b"lost", key="k", headers={}) for _ in range(5)]
        for future in sent:
            with pytest.raises(BusUnavailable, match="no acknowledgement within 1 s"):
                await asyncio.wait_for(future, DEADLINE)
        await asyncio.to_thread(own_kafka.restart)
        assert await patiently(bus, b"1") == 1


@pytest.mark.slow
async def test_a_full_window_refuses_in_time(own_kafka: KafkaService) -> None:
    """With the broker gone and as much on its way as may be, a publisher is told so instead of waiting for ever."""
    settings = settings_for(own_kafka, publish_window=3, rebalance_timeout_ms=500, request_timeout_ms=600)
    async with kafka_bus(settings) as bus:
        await publish(bus, ONE, b"0")
        own_kafka.kill()
        sent = [await bus.publish("one", b"x", key="k", headers={}) for _ in range(3)]
        with pytest.raises(BusUnavailable, match="3 records are on their way"):
            await publish(bus, ONE, b"x")
        await asyncio.to_thread(own_kafka.restart)
        assert await asyncio.wait_for(asyncio.gather(*sent), 40) == [1, 2, 3]


@pytest.mark.slow
async def test_a_bus_can_be_closed_while_its_broker_is_away(own_kafka: KafkaService) -> None:
    """Closing takes no longer than its deadlines, and leaves no task behind."""
    before = asyncio.all_tasks()
    async with kafka_bus(settings_for(own_kafka)) as bus, AsyncExitStack() as open_:
        member = await open_.enter_async_context(bus.member("g", ["one"], Peer()))
        await open_.enter_async_context(bus.reader({FIRST: 0}))
        own_kafka.kill()
        await member.poll(limit=1, timeout=0.3)
        sent = await bus.publish("one", b"x", key="k", headers={})
        began = time.monotonic()

    assert time.monotonic() - began < 45
    with pytest.raises(BusUnavailable):
        await sent
    assert asyncio.all_tasks() == before


# ---- publishing ------------------------------------------------------------------------------------------------------


async def test_a_producer_that_failed_is_replaced(kafka: KafkaService, caplog: pytest.LogCaptureFixture) -> None:
    """A record that only the broker finds too large does not keep those after it from being published.

    With aiokafka alone the broker refuses all that follows in the partition, for a gap in the sequence numbers.
    """
    small = settings_for(kafka, max_request_bytes=2000)
    await create_topics(small, ROUTE, partitions=PARTITIONS)
    async with KafkaBus(dataclasses.replace(small, max_request_bytes=LIMIT)) as bus:
        assert await publish(bus, ONE, b"0") == 0
        with pytest.raises(MessageTooLarge, match="'one'"):
            await publish(bus, ONE, bytes(5000))
        with pytest.raises(BusUnavailable, match="another takes its place"):
            await publish(bus, ONE, b"too soon")
        assert await patiently(bus, b"1") == 1

    assert "another takes its place" in caplog.text


async def test_order_survives_the_replacement_of_a_producer(kafka: KafkaService) -> None:
    """What was handed over to the old producer is written before what the new one gets."""
    small = settings_for(kafka, max_request_bytes=2000)
    await create_topics(small, ROUTE, partitions=PARTITIONS)
    async with KafkaBus(dataclasses.replace(small, max_request_bytes=LIMIT)) as bus:
        sent: list[asyncio.Future[int]] = []
        for n in range(60):
            value = bytes(5000) if n == 20 else b"%d" % n
            sent.append(await bus.publish("many", value, key=f"k{n % 8}", headers={}))
            if n == 40:
                await asyncio.wait([sent[20]], timeout=DEADLINE)
                await eventually(lambda: bus._publisher._ending.done())  # type: ignore[union-attr]
        await asyncio.wait(sent, timeout=DEADLINE)
        written = [n for n, future in enumerate(sent) if future.exception() is None]
        async with bus.reader({Part("many", n): 0 for n in range(PARTITIONS)}) as reader:
            records = await take(reader, len(written))

    assert set(written) >= set(range(41, 60))
    for part in {record.part for record in records}:
        seen = numbers([record for record in records if record.part == part])
        assert seen == sorted(set(seen))


async def test_a_failed_delivery_that_nobody_asks_about_makes_no_noise(
    kafka: KafkaService, caplog: pytest.LogCaptureFixture
) -> None:
    """Futures that were dropped with an error inside are not told by asyncio."""
    small = settings_for(kafka, max_request_bytes=2000)
    await create_topics(small, ROUTE, partitions=PARTITIONS)
    async with KafkaBus(dataclasses.replace(small, max_request_bytes=LIMIT)) as bus:
        future = await bus.publish("one", bytes(5000), key="k", headers={})
        await asyncio.wait([future], timeout=DEADLINE)
        del future
        await patiently(bus, b"1")

    assert "never retrieved" not in caplog.text


async def test_a_partition_that_does_not_exist_is_refused(bus: KafkaBus) -> None:
    """A wrong number is the caller's error, told at once."""
    with pytest.raises(ValueError, match="no partition 9, only 1"):
        await publish(bus, ONE, b"", partition=9)


async def test_keys_have_the_partitions_that_javas_clients_give_them() -> None:
    """The values are those of Kafka's own tests of murmur2."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for key, digest in known.items():
        assert _partition_of(key, 1000) == (digest & 0x7FFFFFFF) % 1000


# ---- members ---------------------------------------------------------------------------------------------------------


async def test_a_successor_under_a_static_identity_takes_over_without_a_rebalance(kafka: KafkaService) -> None:
    """A standby gets the dead member's partitions at once, whatever the session timeout, and nobody else notices."""
    base = settings_for(kafka, session_timeout_ms=20_000)
    one, two = (dataclasses.replace(base, group_instance_id=name) for name in ("one", "two"))
    dead, other, heir = Peer(), Peer(), Peer()
    async with kafka_bus(one) as bus, KafkaBus(two) as other_bus:
        await fill(bus, MANY, 40)
        async with bus.member("g", ["many"], dead) as member, other_bus.member("g", ["many"], other) as living:
            polling: list[Any] = []
            task = asyncio.create_task(collect(living, polling))
            await eventually(lambda: len(dead.parts) == len(other.parts) == 2)
            calls = len(other.calls)
            owned = dead.parts
            await crash(member)
            began = time.monotonic()
            async with KafkaBus(one) as heir_bus, heir_bus.member("g", ["many"], heir) as successor:
                took = time.monotonic() - began
                ends = [await bus.end(part) for part in owned]
                assert len(await take(successor, sum(ends))) == sum(ends)
                await asyncio.sleep(1.0)
            task.cancel()
            await asyncio.wait([task])

    assert heir.calls == [("assigned", owned)]
    assert len(other.calls) == calls
    assert took < 5


async def test_a_member_whose_identity_was_taken_stops(kafka: KafkaService) -> None:
    """The older of two under one static identity learns it from poll and commit, and does not rob it back."""
    settings = dataclasses.replace(settings_for(kafka), group_instance_id="me")
    zombie_peer, heir_peer = Peer(), Peer()
    async with kafka_bus(settings) as bus:
        await fill(bus, ONE, 5)
        async with bus.member("g", ["one"], zombie_peer) as zombie:
            await take(zombie, 5)
            async with bus.member("g", ["one"], heir_peer) as heir:
                with pytest.raises(OwnershipLost, match="'g'"):
                    await take(zombie, 1)
                with pytest.raises(OwnershipLost):
                    await zombie.commit({FIRST: 5})
                assert len(await take(heir, 5)) == 5
                await asyncio.sleep(1.5)
                await heir.commit({FIRST: 5})

    assert [what for what, _ in heir_peer.calls] == ["assigned"]
    assert [what for what, _ in zombie_peer.calls] == ["assigned"]


async def test_a_commit_under_a_taken_identity_is_refused_at_once(kafka: KafkaService) -> None:
    """Before any heartbeat tells, the commit does."""
    settings = dataclasses.replace(settings_for(kafka, session_timeout_ms=30_000), group_instance_id="me")
    async with (
        kafka_bus(settings) as bus,
        bus.member("g", ["one"], Peer()) as zombie,
        bus.member("g", ["one"], Peer()),
    ):
        with pytest.raises(OwnershipLost):
            await zombie.commit({FIRST: 0})


async def test_a_static_member_that_was_silent_too_long_stops(kafka: KafkaService) -> None:
    """A member that the group gave up (it hung) does not go on as if nothing had been; it may have a successor."""
    async with kafka_bus(settings_for(kafka, group_instance_id="me")) as bus, bus.member("g", ["one"], Peer()) as hung:
        await hang(hung)
        with pytest.raises(OwnershipLost, match="'g'"):
            await hung.commit({FIRST: 0})
        with pytest.raises(OwnershipLost):
            await hung.poll(limit=1, timeout=1.0)


async def test_a_dynamic_member_that_was_silent_too_long_joins_anew(kafka: KafkaService) -> None:
    """It gives up all that it held before it takes anything, and commits nothing of its former life."""
    async with kafka_bus(settings_for(kafka)) as bus:
        peer, other = Peer(), Peer()
        await fill(bus, MANY, 20)
        async with bus.member("g", ["many"], peer) as hung, bus.member("g", ["many"], other) as heir:
            await eventually(lambda: len(peer.parts) == len(other.parts) == PARTITIONS // 2)
            had = peer.parts
            await hang(hung)
            await eventually(lambda: len(other.parts) == PARTITIONS)
            records = await take(heir, 20)
            await heir.commit({part: 1 + max(r.offset for r in records if r.part == part) for part in other.parts})
            done = len(peer.calls)
            await hung.commit(dict.fromkeys(had, 0))
            polls = [asyncio.create_task(collect(member, [])) for member in (hung, heir)]
            await eventually(lambda: len(peer.parts) == len(other.parts) == PARTITIONS // 2)
            for poll in polls:
                poll.cancel()
            await asyncio.wait(polls)
            assert await heir.lag() == await hung.lag() == 0

    assert peer.calls[done] == ("assigned", frozenset())


async def test_nothing_is_polled_until_the_listener_has_been_told(bus: KafkaBus) -> None:
    """However long an assignment takes to be digested, no record overtakes the seek in it."""
    member: list[Any] = []

    class Slow(Peer):
        async def assigned(self, parts: Collection[Part]) -> None:
            """Take a while, then go on after what is in hand."""
            await super().assigned(parts)
            await asyncio.sleep(0.3)
            for one in member:
                one.seek(FIRST, 3)

    await fill(bus, ONE, 4)
    peer = Slow()
    async with bus.member("g", ["one"], peer) as one:
        member.append(one)
        await take(one, 3)
        polling = asyncio.create_task(take(one, 1))
        async with bus.member("g", ["one"], Peer()):
            await eventually(lambda: len(peer.calls) >= 3)
        assert numbers(await polling) == [3]


async def test_a_commit_during_a_rebalance_waits_for_its_end(bus: KafkaBus) -> None:
    """Between giving up and getting back, aiokafka's commit would cost the membership; here it only takes longer."""
    peer, busy = Peer(), asyncio.Event()

    class Tardy(Peer):
        async def revoked(self, parts: Collection[Part]) -> None:
            """Keep the rebalance going for a moment."""
            await super().revoked(parts)
            busy.set()
            await asyncio.sleep(0.5)

    async with AsyncExitStack() as joined:
        member = await joined.enter_async_context(bus.member("g", ["many"], peer))
        await joined.enter_async_context(bus.member("g", ["many"], Tardy()))
        await eventually(lambda: len(peer.parts) == 2)
        third = asyncio.create_task(joined.enter_async_context(bus.member("g", ["many"], Peer())))
        commits = 0
        async with asyncio.timeout(DEADLINE):
            while not third.done():
                await member.commit(dict.fromkeys(peer.parts, 0))
                commits += 1
                await asyncio.sleep(0.01)
        assert busy.is_set()
        await member.commit(dict.fromkeys(peer.parts, 0))

    assert commits > 5


async def test_a_listener_that_fails_is_heard_of(bus: KafkaBus) -> None:
    """Aiokafka would log the error and go on; here the next poll raises it."""

    class Failing(Peer):
        async def assigned(self, parts: Collection[Part]) -> None:
            """Fail on the second assignment."""
            await super().assigned(parts)
            if len(self.calls) > 1:
                raise KeyError("state is gone")

    async with bus.member("g", ["one"], Failing()) as member, bus.member("g", ["one"], Peer()):
        with pytest.raises(KeyError, match="state is gone"):
            await take(member, 1)


# ---- reading ---------------------------------------------------------------------------------------------------------


async def delete_before(kafka: KafkaService, topic: str, offset: int) -> None:
    """Delete records as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_reading_goes_on_behind_records_that_were_deleted(
    kafka: KafkaService, caplog: pytest.LogCaptureFixture
) -> None:
    """A member and a reader whose next record is gone begin at the oldest there is, and say how many are missing."""
    settings = settings_for(kafka)
    async with kafka_bus(settings) as bus:
        await fill(bus, ONE, 10)
        async with bus.member("g", ["one"], Peer()) as member:
            await take(member, 3)
            await member.commit({FIRST: 3})
        await delete_before(kafka, settings.topic_prefix + "one", 7)
        async with bus.member("g", ["one"], Peer()) as member:
            assert numbers(await take(member, 3)) == [7, 8, 9]
        async with bus.reader({FIRST: 2}) as reader:
            assert numbers(await take(reader, 3)) == [7, 8, 9]
        async with bus.member("new", ["one"], Peer()) as member:
            assert numbers(await take(member, 3)) == [7, 8, 9]

    gone = [record.getMessage() for record in caplog.records if "are gone" in record.getMessage()]
    assert [text[0] for text in gone] == ["4", "5"]


async def test_a_reader_beyond_the_end_begins_anew(bus: KafkaBus, caplog: pytest.LogCaptureFixture) -> None:
    """A log that is shorter than it was is read again from its beginning, and that is told."""
    await fill(bus, ONE, 3)
    async with bus.reader({FIRST: 100}) as reader:
        assert numbers(await take(reader, 3)) == [0, 1, 2]

    assert "was cut at 3, before 100" in caplog.text


@pytest.mark.parametrize("kind", ["member", "reader"])
async def test_a_consumer_that_hangs_is_replaced(
    kafka: KafkaService, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """More is there and nothing comes: it connects anew and goes on where it was."""
    peer = Peer()
    async with kafka_bus(settings_for(kafka, stall_timeout_ms=300)) as bus:
        opening: Any = bus.member("g", ["one"], peer) if kind == "member" else bus.reader({FIRST: 0})
        async with opening as source:
            await fill(bus, ONE, 3)
            await take(source, 3)
            if kind == "member":
                await source.commit({FIRST: 3})
            source._consumer._fetcher._fetch_task.cancel()
            await asyncio.sleep(0.3)  # a fetch that is still on its way would bring the records
            await fill(bus, ONE, 3, start=3)
            assert numbers(await take(source, 3)) == [3, 4, 5]

    assert "connecting anew" in caplog.text
    if kind == "member":
        assert [what for what, _ in peer.calls] == ["assigned", "revoked", "assigned", "assigned"]


async def test_a_consumer_with_nothing_to_read_is_left_alone(
    kafka: KafkaService, caplog: pytest.LogCaptureFixture
) -> None:
    """Silence is no stall."""
    async with (
        kafka_bus(settings_for(kafka, stall_timeout_ms=100)) as bus,
        bus.member("g", ["many"], Peer()) as member,
    ):
        for n in range(12):
            await member.poll(limit=10, timeout=0.1)
            if n % 3 == 0:
                await fill(bus, MANY, 1, partition=0)

    assert "anew" not in caplog.text


async def test_records_of_foreign_producers_can_be_read(kafka: KafkaService) -> None:
    """No key, no value, or bytes that are no text: nothing of it stops a reader."""
    settings = settings_for(kafka)
    async with kafka_bus(settings) as bus:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            topic = settings.topic_prefix + "one"
            await producer.send_and_wait(topic, b"v", key=b"\xff\xfe", headers=[("h", b"\xff"), ("none", None)])
            await producer.send_and_wait(topic, None, key=b"tombstone")
            await producer.send_and_wait(topic, b"v")
        async with bus.reader({FIRST: 0}) as reader:
            odd, tombstone, keyless = await take(reader, 3)

    assert (odd.key, dict(odd.headers)) == ("��", {"h": "�", "none": ""})
    assert (tombstone.key, tombstone.value) == ("tombstone", b"")
    assert (keyless.key, dict(keyless.headers)) == ("", {})


async def test_others_can_read_what_is_published(kafka: KafkaService) -> None:
    """Keys, values and headers are plain bytes to a consumer that is not ours."""
    settings = settings_for(kafka)
    async with kafka_bus(settings) as bus:
        await publish(bus, ONE, b"v", key="ключ", headers={"h": "ü"})
        consumer = AIOKafkaConsumer(
            settings.topic_prefix + "one", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
        )
        async with consumer:
            record = await asyncio.wait_for(consumer.getone(), DEADLINE)

    assert (record.key, record.value, record.headers) == ("ключ".encode(), b"v", (("h", "ü".encode()),))


# ---- topics ----------------------------------------------------------------------------------------------------------


async def test_topics_are_created_once(kafka: KafkaService) -> None:
    """What is missing is created as the route says; what is there is left alone."""
    settings = settings_for(kafka)
    first = await create_topics(settings, ROUTE, partitions=3)
    again = await create_topics(settings, ROUTE, partitions=3)

    assert [(one.topic, one.outcome, one.partitions) for one in first] == [
        ("many", "created", 3),
        ("one", "created", 1),
    ]
    assert [(one.topic, one.outcome, one.partitions) for one in again] == [("many", "exists", 3), ("one", "exists", 1)]


async def test_topics_that_differ_are_told_and_left_alone(kafka: KafkaService) -> None:
    """Another number of partitions and another retention are named, and nothing is changed."""
    settings = settings_for(kafka)
    await create_topics(settings, ROUTE, partitions=3)
    other = Topic("many", Turn, keep_ms=1000)
    (made,) = await create_topics(settings, [other], partitions=5)
    (found, missing) = await describe_topics(settings, [other, Topic("nowhere", Turn)], partitions=5)

    assert made.outcome == "differs"
    assert made.differs == ("it has 3 partitions, not 5", "retention.ms is 86400000, not 1000")
    assert (found.partitions, found.replication, found.differs) == (3, 1, made.differs)
    assert (missing.exists, missing.differs) == (False, ())


async def test_topics_that_cannot_be_created_say_why(kafka: KafkaService) -> None:
    """More copies than there are brokers: Kafka's own words, and the topic's name."""
    with pytest.raises(BusUnavailable, match=r"'.*many' cannot be created: .*replication"):
        await create_topics(settings_for(kafka), [MANY], partitions=1, replication=9)


async def test_deployments_can_share_a_cluster(kafka: KafkaService) -> None:
    """Two prefixes have topics and groups of their own."""
    async with kafka_bus(settings_for(kafka)) as one, kafka_bus(settings_for(kafka)) as other:
        await fill(one, ONE, 3)
        async with other.member("g", ["one"], Peer()) as stranger, one.member("g", ["one"], Peer()) as member:
            assert len(await take(member, 3)) == 3
            assert not await stranger.poll(limit=10, timeout=0.3)


async def test_settings_that_cannot_be_are_refused() -> None:
    """What would only show as a hang or a broken login later is told when the settings are made."""
    with pytest.raises(ValueError, match="request_timeout_ms must be more than rebalance_timeout_ms"):
        KafkaSettings(request_timeout_ms=5000, rebalance_timeout_ms=5000)
    with pytest.raises(ValueError, match="SASL_SSL needs sasl_username"):
        KafkaSettings(security_protocol="SASL_SSL")
    with pytest.raises(ValueError, match="go together"):
        KafkaSettings(tls_certificate="cert.pem")


async def test_nothing_is_left_behind(kafka: KafkaService, caplog: pytest.LogCaptureFixture) -> None:
    """A bus that was used and closed leaves no task, and aiokafka has nothing to complain of."""
    before = asyncio.all_tasks()
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        async with kafka_bus(settings_for(kafka)) as bus, bus.reader({FIRST: 0}) as reader:
            await fill(bus, ONE, 3)
            await take(reader, 3)
            async with bus.member("g", ["many"], Peer()) as member:
                await member.poll(limit=1, timeout=0.05)

    assert asyncio.all_tasks() == before
    assert "Unclosed" not in caplog.text
    assert "never retrieved" not in caplog.text
