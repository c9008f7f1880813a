"""What the pipeline adds to an engine: the same prompt to the engine directly and through the whole pipe, in turns.

Through the pipe means: a WebSocket client, the gateway, the text stage, the LLM stage, the postprocessing stage and
back, with all of them and the client in this one process, on the memory bus or with each hop through Kafka.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from apps.bench.client import ANSWER_S, Asker, Timing
from apps.bench.report import Spread, spread, table, told
from apps.local import piped
from apps.parts import Parts, loaded
from apps.settings import Settings
from pipeline.bus import Bus
from pipeline.errors import BusUnavailable, SettingsError
from pipeline.kafka import KafkaBus, KafkaSettings, create_topics
from pipeline.kafka.clients import connected, in_time, stop
from pipeline.kafka.lookup import Admin
from pipeline.memory import MemoryBus
from pipeline.messages import Prompt
from pipeline.topics import ROUTE
from stages.llm.stage import Engine, Run

log = logging.getLogger(__name__)

QUESTION = "What are your opening hours?"
WARM_UP = 10
ROOM = 2.0
"""An answer begins no sooner after the one before than so many times an answer's own time."""
DELETE_S = 30.0
EngineKind = Literal["instant", "model"]

Figure = Literal["first", "per_token"]
TITLES: Mapping[Figure, str] = MappingProxyType({"first": "first token", "per_token": "from token to token"})


class Plan(NamedTuple):
    """How much to measure: `n` answers each way of at most `tokens` tokens.

    One begins every `interval` seconds, or less often where the engine is too slow for that.
    """

    n: int = 100
    tokens: int = 32
    interval: float = 0.25


class Measured(NamedTuple):
    """The answers both ways, one begun every `interval` seconds."""

    direct: list[Timing]
    piped: list[Timing]
    interval: float


class Outcome(NamedTuple):
    """The answers of one engine over one bus."""

    engine: str
    bus: str
    measured: Measured

    def rows(self, what: Figure) -> dict[str, Spread]:
        """Percentiles both ways, in milliseconds."""
        return {
            "engine alone": spread(1000 * getattr(timing, what) for timing in self.measured.direct),
            "whole pipe": spread(1000 * getattr(timing, what) for timing in self.measured.piped),
        }

    def result(self) -> dict[str, Any]:
        """The figures for a machine to read."""
        _, piped, interval = self.measured
        figures: dict[str, Any] = {"engine": self.engine, "bus": self.bus}
        figures |= {"tokens": piped[0].tokens, "interval_s": round(interval, 3)}
        for what in TITLES:
            rows = {name.replace(" ", "_"): row._asdict() for name, row in self.rows(what).items()}
            added = rows["whole_pipe"]["p50"] - rows["engine_alone"]["p50"]
            figures[f"{what}_ms"] = {**rows, "added_p50": added}
        return figures


def kinds_of(names: list[str]) -> list[EngineKind]:
    """The engines to measure.

    Raises:
        SettingsError: one is none of them.
    """
    for name in names:
        if name not in get_args(EngineKind):
            raise SettingsError("--engine", f"there is no {name!r}; there are {', '.join(get_args(EngineKind))}")
    return [kind for kind in get_args(EngineKind) if kind in names]


class Recorder:
    """Passes prompts on to `engine` and remembers the last one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.prompt: Prompt | None = None

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """See `Engine.generate`."""
        self.prompt = prompt
        async with aclosing(self._engine.generate(prompt)) as runs:
            async for run in runs:
                yield run


async def directly(engine: Engine, prompt: Prompt, number: int, intended: float) -> Timing:
    """Let the engine alone continue `prompt`, as a turn of its own."""
    first = last = 0.0
    tokens = 0
    async with (
        asyncio.timeout(ANSWER_S),
        aclosing(engine.generate(msgspec.structs.replace(prompt, turn=f"direct-{number}"))) as answer,
    ):
        async for run in answer:
            if run.ids:
                last = time.perf_counter() - intended
                first = first or last
                tokens += len(run.ids)
    return Timing(first, last, tokens)


async def measured(url: str, engine: Recorder, plan: Plan) -> Measured:
    """Alternate between the engine and the pipe on a clock of its own; what comes late counts from when it was due."""
    asker = await Asker.connected(url)
    warm = [await asker.ask(QUESTION, tokens=plan.tokens) for _ in range(WARM_UP)]
    interval = max(plan.interval, ROOM * median(timing.last for timing in warm))
    assert engine.prompt is not None
    prompt = engine.prompt
    direct: list[Timing] = []
    through: list[Timing] = []
    start = time.perf_counter() + interval
    for number in range(2 * plan.n):
        due = start + number * interval
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if number % 2:
            through.append(await asker.ask(QUESTION, tokens=plan.tokens, intended=due))
        else:
            direct.append(await directly(engine, prompt, number, due))
    await asker.close()
    return Measured(direct, through, interval)


@asynccontextmanager
async def bus_of(settings: Settings, kafka: str | None) -> AsyncGenerator[Bus, None]:
    """The memory bus, or the one of `kafka` with topics of its own, which are deleted afterwards in any case."""
    if kafka is None:
        async with MemoryBus() as memory:
            yield memory
        return
    prefix = f"{settings.kafka.topic_prefix}bench-{time.time_ns()}-"
    chosen = replace(settings.kafka, bootstrap=kafka, topic_prefix=prefix)
    try:
        await create_topics(chosen, ROUTE, partitions=4)
        async with KafkaBus(chosen) as bus:
            yield bus
    finally:
        await delete_topics(chosen)


async def delete_topics(settings: KafkaSettings) -> None:
    """Delete the route with the prefix in `settings`; where Kafka is lost, say what stays behind."""
    names = [settings.topic_prefix + topic.name for topic in ROUTE]
    try:
        admin = await connected(lambda: Admin(settings), settings)
        try:
            await in_time(admin.client.delete_topics(names), settings, DELETE_S)
        finally:
            await stop(admin)
    except BusUnavailable as error:
        log.warning("the topics %s are left behind: %s", ", ".join(names), error)


async def compare(settings: Settings, parts: Parts, kind: EngineKind, kafka: str | None, plan: Plan) -> Outcome:
    """Measure one engine over one bus."""
    assert parts.engine is not None
    recorder = Recorder(parts.engine)
    async with bus_of(settings, kafka) as bus, piped(bus, replace(parts, engine=recorder), settings) as url:
        return Outcome(kind, "kafka" if kafka else "embedded", await measured(url, recorder, plan))


async def overhead(
    settings: Settings, plan: Plan, *, kafka: str | None, kinds: list[EngineKind], path: Path | None
) -> None:
    """Measure every engine over every bus there is, and tell."""
    outcomes: list[Outcome] = []
    for kind in kinds:
        model = replace(settings.model, name="instant") if kind == "instant" else settings.model
        async with loaded(model) as parts:
            outcomes += [
                await compare(settings, parts, kind, bus, plan) for bus in ([None, kafka] if kafka else [None])
            ]
    tables = [
        table(f"{outcome.engine} engine, {outcome.bus}: {title}", outcome.rows(what), unit="ms")
        for outcome in outcomes
        for what, title in TITLES.items()
    ]
    told(
        {"bench": "overhead", "plan": plan._asdict(), "outcomes": [outcome.result() for outcome in outcomes]},
        tables,
        ["gateway, stages, engine and WebSocket client in one process; open loop, alternating with the engine alone"],
        path,
    )
