"""One stage between two Kafka topics: ours, bare aiokafka and FastStream, in alternating rounds of one run.

All do the same: read a turn, decode it, let a handler make a prompt of it, encode and publish that. All publish with
acks=all, idempotent and without linger, and collect garbage as rarely as a worker does. Ours and bare aiokafka keep the
order of each key, work on all keys at once that are at hand, commit what is acknowledged, and fetch and batch alike;
bare aiokafka goes from batch to batch and ends with the first error. FastStream with `AckPolicy.ACK` keeps the order of
whole partitions. With `ACK_FIRST` and many workers it promises neither, and is shown beside.

Throughput: a backlog is there before the start, and the broker's own clock tells when the first and the last result
were written. Latency: messages come on their own clock, and count from the time at which they should have been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from rich.table import Table

from apps.bench.report import Spread, measuring, spread, table, told
from apps.worker import collect_rarely
from pipeline.bus import Part, Record
from pipeline.errors import SettingsError
from pipeline.kafka import KafkaBus, KafkaSettings, create_topics
from pipeline.kafka.publisher import BATCH_BYTES
from pipeline.kafka.source import FETCH_BYTES, FETCH_WAIT_MS
from pipeline.loop import Loop
from pipeline.messages import Prompt, Turn, Utterance
from pipeline.stage import Stage, Stream
from pipeline.topics import PROMPTS, ROUTE, TURNS

OURS, BARE, PEER, LOOSE = "ours", "bare aiokafka", "FastStream", "FastStream, acked first"
PARTITIONS = 8
WORKERS = 256
BATCH = 500
PATIENCE_S = 60.0
LATENCY_KEYS = 64
LOOK_S = 0.5
"""Seconds between two looks at how far a system is. They cost it processor time; when it was done, its records tell."""


class Plan(NamedTuple):
    """What to measure.

    `keys` are the numbers of concurrent keys, `waits_ms` what a handler awaits, `messages` the backlog of a round, of
    which as much is counted as is done in `limit_s` seconds. `rate` messages a second for `latency_s` seconds tell the
    latency; 0 leaves that out.
    """

    keys: Sequence[int] = (1, 8, 64, 512)
    waits_ms: Sequence[float] = (0.0, 1.0)
    messages: int = 20_000
    limit_s: float = 5.0
    rounds: int = 5
    rate: int = 100
    latency_s: float = 5.0
    loose: bool = True


class Work(NamedTuple):
    """One system's task: Kafka and its topics, the group, how many keys at once, and what the handler awaits."""

    settings: KafkaSettings
    group: str
    keys: int
    wait_s: float


class Result(NamedTuple):
    """What a system did of a backlog: messages a second, how many, if in order, and the processor time of each."""

    rate: float
    done: int
    ordered: bool
    cpu_us: float


Running = Callable[[Work], AbstractAsyncContextManager[None]]


async def answer(turn: Turn, wait_s: float) -> Prompt:
    """The handler: waits as for a service, if at all."""
    if wait_s:
        await asyncio.sleep(wait_s)
    return Prompt(turn.session, turn.turn, ids=(1, 2, 3, 4, 5, 6, 7, 8))


# ---- the systems -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(work: Work) -> AsyncGenerator[None, None]:
    """The loop with a stage."""

    async def each(turn: Turn) -> Stream:
        yield await answer(turn, work.wait_s)

    async with KafkaBus(work.settings) as bus:
        loop = Loop(Stage("bench", TURNS, each=each, concurrency=work.keys), bus, group=work.group)
        async with _task(loop.run()) as running:
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
    async with producer, consumer, _task(_by_hand(work, consumer, producer)) as running:
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
async def _task(work: Any) -> AsyncGenerator[asyncio.Task[Any], None]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# ---- throughput ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def with_backlog(settings: KafkaSettings, keys: int, messages: int) -> AsyncGenerator[KafkaSettings, None]:
    """Topics of their own, with `messages` turns of `keys` sessions waiting in them; deleted afterwards."""
    own = replace(settings, topic_prefix=f"{settings.topic_prefix}bench-{uuid.uuid4().hex[:8]}.")
    await create_topics(own, ROUTE, partitions=PARTITIONS)
    try:
        await _fill(own, keys, messages)
        yield own
    finally:
        async with _admin(own) as admin:
            await admin.delete_topics([own.topic_prefix + topic.name for topic in ROUTE])


async def _fill(own: KafkaSettings, keys: int, messages: int) -> None:
    async with KafkaBus(own) as bus:
        sent = []
        for number in range(messages):
            turn = Turn(f"session-{number % keys}", str(number), (Utterance("user", "what are your opening hours?"),))
            sent.append(
                await bus.publish(TURNS.name, TURNS.encode(turn), key=turn.session, headers={"turn": turn.turn})
            )
        await asyncio.gather(*sent)


async def work_off(running: Running, work: Work, bus: KafkaBus, plan: Plan) -> Result:
    """Let a system work on the backlog, and see what it wrote."""
    parts = [Part(PROMPTS.name, number) for number in range(PARTITIONS)]
    before = {part: await bus.end(part) for part in parts}
    gc.collect()
    spent = time.process_time()
    async with running(work):
        await _until_done(bus, parts, sum(before.values()) + plan.messages, plan.limit_s)
        spent = time.process_time() - spent
    return _judged(await _written(bus, before), spent)


async def _until_done(bus: KafkaBus, parts: Sequence[Part], end: int, limit_s: float) -> None:
    """Until all is written, or for `limit_s` seconds from the first result on."""
    start, deadline = -1, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        reached = sum([await bus.end(part) for part in parts])
        if reached >= end:
            return
        if start < 0:
            start = reached
        elif reached > start:
            start, deadline = end, min(deadline, time.monotonic() + limit_s)
        await asyncio.sleep(LOOK_S)


async def _written(bus: KafkaBus, before: Mapping[Part, int]) -> list[Record]:
    ends = {part: await bus.end(part) for part in before}
    missing = sum(ends.values()) - sum(before.values())
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_S), bus.reader(dict(before)) as reader:
        while len(records) < missing:
            records += await reader.poll(limit=1000, timeout=1.0)
    return records


def _judged(records: Sequence[Record], spent: float) -> Result:
    """Messages a second after those that were written first, and whether each key's came in order."""
    times = [record.timestamp for record in records]
    last: dict[str, int] = {}
    ordered = True
    for record in records:
        prompt: Prompt = PROMPTS.decode(record.value)
        ordered &= last.get(prompt.session, -1) < int(prompt.turn)
        last[prompt.session] = int(prompt.turn)
    first = min(times, default=0)
    seconds = max(1, max(times, default=0) - first) / 1000
    return Result(
        (len(records) - times.count(first)) / seconds, len(records), ordered, spent / max(1, len(records)) * 1e6
    )


# ---- latency ---------------------------------------------------------------------------------------------------------


async def latencies(running: Running, work: Work, plan: Plan) -> list[float]:
    """Milliseconds from when a turn should have been published to when its prompt is read, for each."""
    count = int(plan.rate * plan.latency_s)
    begun: dict[str, float] = {}
    taken: list[float] = []

    async def read(reader: Any) -> None:
        while len(taken) < count:
            for record in await reader.poll(limit=BATCH, timeout=1.0):
                prompt: Prompt = PROMPTS.decode(record.value)
                if prompt.turn in begun:
                    taken.append((time.perf_counter() - begun.pop(prompt.turn)) * 1000)

    async with (
        KafkaBus(work.settings) as bus,
        running(work),
        bus.reader({Part(PROMPTS.name, number): None for number in range(PARTITIONS)}) as reader,
    ):
        await _send(bus, plan.rate, plan.rate, {})  # a second to warm up
        async with _task(read(reader)) as reading:
            await _send(bus, count, plan.rate, begun)
            await asyncio.wait([reading], timeout=PATIENCE_S)
    return taken + [PATIENCE_S * 1000] * len(begun)


async def _send(bus: KafkaBus, count: int, rate: int, begun: dict[str, float]) -> None:
    start = time.perf_counter()
    for number in range(count):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        turn = Turn(f"session-{number % LATENCY_KEYS}", f"{start}-{number}", (Utterance("user", "hello"),))
        begun[turn.turn] = due
        _ = await bus.publish(TURNS.name, TURNS.encode(turn), key=turn.session, headers={"turn": turn.turn})


# ---- the run ---------------------------------------------------------------------------------------------------------


def run(settings: KafkaSettings, plan: Plan | None = None, *, path: Path | None = None) -> None:
    """Measure, show, and write the figures to `path`.

    Raises:
        BusUnavailable: there is no Kafka.
        SettingsError: FastStream is missing.
    """
    asyncio.run(measure(settings, plan or Plan(), path=path))


async def measure(settings: KafkaSettings, plan: Plan, *, path: Path | None) -> None:
    """Measure in alternating rounds, and tell."""
    systems: dict[str, Running] = {OURS: ours, BARE: bare, PEER: faststream(strict=True)}
    if plan.loose:
        systems[LOOSE] = faststream(strict=False)
    collect_rarely()
    steps = len(plan.keys) * len(plan.waits_ms) * plan.rounds * len(systems) + (len(systems) if plan.rate else 0)
    results: dict[tuple[float, int], dict[str, list[Result]]] = {}
    waited: dict[str, Spread] = {}
    with measuring("measuring", steps) as advance:
        for wait_ms in plan.waits_ms:
            for keys in plan.keys:
                results[wait_ms, keys] = await _compared(systems, settings, plan, keys, wait_ms / 1000, advance)
        if plan.rate:
            waited = await _latency(systems, settings, plan, advance)
    brokers = await _brokers(settings)
    told(
        {"broker": brokers, "plan": plan._asdict(), "throughput": _rows(results), "latency_ms": _plain(waited)},
        [_table(results), *([table(f"latency at {plan.rate}/s", waited, unit="ms")] if waited else [])],
        _remarks(plan, brokers),
        path,
    )


async def _compared(
    systems: Mapping[str, Running], settings: KafkaSettings, plan: Plan, keys: int, wait_s: float, tick: Any
) -> dict[str, list[Result]]:
    """`rounds` of each system, each time in another order."""
    found: dict[str, list[Result]] = {name: [] for name in systems}
    async with with_backlog(settings, keys, plan.messages) as own, KafkaBus(own) as bus:
        for number in range(plan.rounds):
            names = list(systems)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                work = Work(own, f"{number}-{list(systems).index(name)}", keys, wait_s)
                found[name].append(await work_off(systems[name], work, bus, plan))
                tick()
    return found


async def _latency(systems: Mapping[str, Running], settings: KafkaSettings, plan: Plan, tick: Any) -> dict[str, Spread]:
    found = {}
    for name, running in systems.items():
        async with with_backlog(settings, LATENCY_KEYS, 0) as own:
            found[name] = spread(await latencies(running, Work(own, "latency", LATENCY_KEYS, 0.0), plan))
        tick()
    return found


async def _brokers(settings: KafkaSettings) -> str:
    async with _admin(settings) as admin:
        count = len((await admin.describe_cluster())["brokers"])
    return f"Kafka at {settings.bootstrap}, {count} broker{'s' if count > 1 else ''}"


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncGenerator[AIOKafkaAdminClient, None]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


# ---- telling ---------------------------------------------------------------------------------------------------------


def ratios(results: Mapping[str, Sequence[Result]], peer: str) -> list[float]:
    """Ours against `peer`, round by round."""
    return [one.rate / other.rate for one, other in zip(results[OURS], results[peer], strict=True)]


def _rows(results: Mapping[tuple[float, int], Mapping[str, Sequence[Result]]]) -> list[dict[str, Any]]:
    return [
        {
            "wait_ms": wait_ms,
            "keys": keys,
            "rounds": {name: [round(one.rate, 1) for one in found] for name, found in systems.items()},
            "done": {name: [one.done for one in found] for name, found in systems.items()},
            "cpu_us": {name: [round(one.cpu_us, 1) for one in found] for name, found in systems.items()},
            "ordered": {name: all(one.ordered for one in found) for name, found in systems.items()},
            "ratio": {
                name: {"median": round(median(found), 3), "least": round(min(found), 3), "most": round(max(found), 3)}
                for name in systems
                if name != OURS
                for found in [ratios(systems, name)]
            },
        }
        for (wait_ms, keys), systems in results.items()
    ]


def _plain(waited: Mapping[str, Spread]) -> dict[str, Any]:
    return {name: row._asdict() for name, row in waited.items()}


def _table(results: Mapping[tuple[float, int], Mapping[str, Sequence[Result]]]) -> Table:
    names = list(next(iter(results.values())))
    compared = (f"{OURS} / {name}" for name in names[1:])
    drawn = Table("handler", "keys", *names, *compared, title="messages/s (processor time each), medians")
    for column in drawn.columns[1:]:
        column.justify = "right"
    for (wait_ms, keys), systems in results.items():
        found = [ratios(systems, name) for name in names[1:]]
        drawn.add_row(
            "trivial" if not wait_ms else f"awaits {wait_ms:g} ms",
            str(keys),
            *(_cell(results) for results in systems.values()),
            *(f"{median(one):.2f} ({min(one):.2f}–{max(one):.2f})" for one in found),
        )
    return drawn


def _cell(found: Sequence[Result]) -> str:
    rate, cpu = median(one.rate for one in found), median(one.cpu_us for one in found)
    order = "" if all(one.ordered for one in found) else ", no order"
    return f"{rate:,.0f} ({cpu:.0f} µs{order})"


def _remarks(plan: Plan, brokers: str) -> list[str]:
    counted = f"backlogs of {plan.messages} messages, counted for up to {plan.limit_s:g} s, {plan.rounds} rounds"
    return [
        f"{brokers}; {PARTITIONS} partitions, {counted} in alternating order; ratios are medians (least–most)",
        f"{OURS}, {BARE} and {PEER} keep the order of each key and commit what is acknowledged",
        f"{LOOSE}: {WORKERS} workers, no order, and what is in hand is lost when it dies",
    ]
