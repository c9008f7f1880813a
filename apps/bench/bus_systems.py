"""What `bus.py` compares: ours, bare aiokafka and FastStream do the same work between two Kafka topics.

All read a turn, decode it, let a handler make a prompt of it, encode and publish that. All publish with acks=all,
idempotent and without linger. Ours and bare aiokafka keep the order of each key, work on all keys at once that are at
hand, commit what is acknowledged, and fetch and batch alike; bare aiokafka goes from batch to batch and ends with the
first error. FastStream with `AckPolicy.ACK` keeps the order of whole partitions. With `ACK_FIRST` and many workers it
promises neither. Knows nothing of what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from pipeline.errors import SettingsError
from pipeline.kafka import KafkaBus, KafkaSettings
from pipeline.kafka.publisher import BATCH_BYTES
from pipeline.kafka.source import FETCH_BYTES, FETCH_WAIT_MS
from pipeline.loop import Loop
from pipeline.messages import Prompt, Turn
from pipeline.stage import Stage, Stream
from pipeline.topics import PROMPTS, TURNS

OURS, BARE, PEER, LOOSE = "ours", "bare aiokafka", "FastStream", "FastStream, acked first"
PARTITIONS = 8
WORKERS = 256
BATCH = 500


class Work(NamedTuple):
    """One system's task: Kafka and its topics, the group, how many keys at once, and what the handler awaits."""

    settings: KafkaSettings
    group: str
    keys: int
    wait_s: float


Running = Callable[[Work], AbstractAsyncContextManager[None]]


async def answer(turn: Turn, wait_s: float) -> Prompt:
    """The handler: waits as for a service, if at all."""
    if wait_s:
        await asyncio.sleep(wait_s)
    return Prompt(turn.session, turn.turn, ids=(1, 2, 3, 4, 5, 6, 7, 8))


@asynccontextmanager
async def ours(work: Work) -> AsyncGenerator[None, None]:
    """The loop with a stage."""

    async def each(turn: Turn) -> Stream:
        yield await answer(turn, work.wait_s)

    async with KafkaBus(work.settings) as bus:
        loop = Loop(Stage("bench", TURNS, each=each, concurrency=work.keys), bus, group=work.group)
        async with running_task(loop.run()) as running:
            yield
            loop.drain()
            await running


@asynccontextmanager
async def bare(work: Work) -> AsyncGenerator[None, None]:
    """What one writes by hand on aiokafka with the same guarantee."""
    consumer = AIOKafkaConsumer(
        _name(work, TURNS.name),
        bootstrap_servers=work.settings.bootstrap,
        group_id=work.settings.topic_prefix + work.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=work.settings.bootstrap, enable_idempotence=True, max_batch_size=BATCH_BYTES
    )
    async with producer, consumer, running_task(_by_hand(work, consumer, producer)) as running:
        yield
        running.cancel()


async def _by_hand(work: Work, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    topic = _name(work, PROMPTS.name)
    while True:
        by_key: defaultdict[bytes, list[Any]] = defaultdict(list)
        for records in (await consumer.getmany(timeout_ms=1000, max_records=BATCH)).values():
            for record in records:
                by_key[record.key].append(record)
        if not by_key:
            continue
        sent: list[asyncio.Future[Any]] = []

        async def in_turn(records: list[Any], sent: list[asyncio.Future[Any]] = sent) -> None:
            for record in records:
                prompt = await answer(TURNS.decode(record.value), work.wait_s)
                sent.append(
                    await producer.send(topic, PROMPTS.encode(prompt), key=record.key, headers=list(record.headers))
                )

        await asyncio.gather(*(in_turn(records) for records in by_key.values()))
        await asyncio.gather(*sent)
        await consumer.commit()


def faststream(*, strict: bool) -> Running:
    """FastStream with the same guarantee, or (not `strict`) without, and many workers.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        from faststream import AckPolicy
        from faststream.kafka import KafkaBroker, KafkaMessage
    except ImportError as error:
        raise SettingsError("bench", "FastStream is not installed; `pip install 'faststream[kafka]'`") from error

    @asynccontextmanager
    async def running(work: Work) -> AsyncGenerator[None, None]:
        broker = KafkaBroker(
            work.settings.bootstrap, enable_idempotence=strict, acks="all", apply_types=False, logger=None
        )

        async def decoded(message: KafkaMessage) -> Turn:
            turn: Turn = TURNS.decode(message.body)
            return turn

        @broker.subscriber(
            _name(work, TURNS.name),
            group_id=work.settings.topic_prefix + work.group,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.ACK if strict else AckPolicy.ACK_FIRST,
            max_workers=PARTITIONS if strict else WORKERS,
            decoder=decoded,
        )
        async def handle(turn: Turn) -> None:
            prompt = await answer(turn, work.wait_s)
            await broker.publish(PROMPTS.encode(prompt), _name(work, PROMPTS.name), key=turn.session.encode())

        async with broker:
            await broker.start()
            yield

    return running


def _name(work: Work, topic: str) -> str:
    return work.settings.topic_prefix + topic


@asynccontextmanager
async def running_task(work: Any) -> AsyncGenerator[asyncio.Task[Any], None]:
    """Run `work` meanwhile, and end it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
