"""One stage between two Kafka topics: ours, bare aiokafka and FastStream, in alternating rounds of one run.

What they are and promise, `bus_systems.py` says. FastStream that acknowledges first promises less, and is shown beside.

Throughput: a backlog is there before the start, and the broker's own clock tells when the first and the last result
were written. Latency: messages come on their own clock, and count from the time at which they should have been sent.
"""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient

from apps.bench.bus_report import Result, judged, rows, throughput
from apps.bench.bus_systems import (
    BARE,
    BATCH,
    LOOSE,
    OURS,
    PARTITIONS,
    PEER,
    WORKERS,
    Running,
    Work,
    bare,
    faststream,
    ours,
    running_task,
)
from apps.bench.report import Spread, measuring, spread, table, told
from apps.worker import collect_rarely
from pipeline.bus import Part, Record
from pipeline.kafka import KafkaBus, KafkaSettings, create_topics
from pipeline.messages import Prompt, Turn, Utterance
from pipeline.topics import PROMPTS, ROUTE, TURNS

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
    return judged(await _written(bus, before), spent)


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
        async with running_task(read(reader)) as reading:
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
        {
            "broker": brokers,
            "plan": plan._asdict(),
            "throughput": rows(results),
            "latency_ms": {name: row._asdict() for name, row in waited.items()},
        },
        [throughput(results), *([table(f"latency at {plan.rate}/s", waited, unit="ms")] if waited else [])],
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


def _remarks(plan: Plan, brokers: str) -> list[str]:
    counted = f"backlogs of {plan.messages} messages, counted for up to {plan.limit_s:g} s, {plan.rounds} rounds"
    return [
        f"{brokers}; {PARTITIONS} partitions, {counted} in alternating order; ratios are medians (least–most)",
        f"{OURS}, {BARE} and {PEER} keep the order of each key and commit what is acknowledged",
        f"{LOOSE}: {WORKERS} workers, no order, and what is in hand is lost when it dies",
    ]
