"""What a flooding tenant costs a quiet one: the quiet one's first tokens, in turns with and without the flood.

The quiet tenant asks on a clock of its own, and what comes late counts from when it was due. The flooding one keeps as
many turns under way as it is told, and asks again soon after each that was answered or refused. Both are real WebSocket
clients with keys of their own, in another process than what they speak to.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from apps.bench.client import Asker, Ended
from apps.bench.report import measuring, spread, table, told
from apps.bench.served import Served, served
from apps.gateway.keyfile import add
from pipeline.kafka import KafkaSettings

QUIET_QUESTION = "What are your opening hours?"
FLOOD_QUESTION = "How do I wash a down jacket, and what does a tent for two cost?"
SESSIONS, AGAIN_S = 100, 1.0
"""Of the flood: its sockets, and how soon it asks again, whatever it was told."""
QUIET_SESSIONS = 8
"""Of the quiet tenant, so that a slow answer does not hold up its next question."""
SETTLE_S = 3.0
"""How long a flood has to build up before anything is counted, and to ebb away."""


class Plan(NamedTuple):
    """How much to measure.

    `rounds` of `n` quiet turns without and as many with the flood, one every `interval` seconds; `flood` turns of the
    flooding tenant under way.
    """

    n: int = 20
    rounds: int = 3
    interval: float = 0.5
    flood: int = 300
    tokens: int = 64


class Outcome(NamedTuple):
    """The quiet tenant's turns without and with the flood, and how the flooding one's ended meanwhile."""

    bus: str
    alone: list[Ended]
    flooded: list[Ended]
    flood: Counter[str]


class Flood:
    """A tenant that keeps `plan.flood` turns under way."""

    def __init__(self, url: str, key: str, plan: Plan) -> None:
        self._url, self._key, self._plan = url, key, plan
        self.ended: Counter[str] = Counter()

    async def run(self) -> None:
        """Flood until cancelled."""
        each = -(-self._plan.flood // SESSIONS)
        async with asyncio.TaskGroup() as tasks:
            for number in range(min(self._plan.flood, SESSIONS)):
                tasks.create_task(self._session(min(each, self._plan.flood - number * each)))

    async def _session(self, turns: int) -> None:
        """One socket with so many turns under way, read as they end."""
        asker = await Asker.connected(self._url, self._key)
        try:
            for _ in range(turns):
                await asker.begin(FLOOD_QUESTION, tokens=self._plan.tokens)
            while True:
                ended = await asker.end(time.perf_counter())
                self.ended[ended.code or ended.status] += 1
                await asyncio.sleep(AGAIN_S)
                await asker.begin(FLOOD_QUESTION, tokens=self._plan.tokens)
        finally:
            asker.vanish()


async def quiet(askers: Sequence[Asker], plan: Plan) -> list[Ended]:
    """The quiet tenant's turns, each when it is due, in one session after the other."""
    start = time.perf_counter()

    async def ask(asker: Asker, mine: range) -> list[Ended]:
        turns = []
        for number in mine:
            due = start + number * plan.interval
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            turns.append(await asker.attempt(QUIET_QUESTION, tokens=plan.tokens, intended=due))
        return turns

    async with asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(ask(asker, range(number, plan.n, len(askers)))) for number, asker in enumerate(askers)
        ]
    return [turn for task in asking for turn in task.result()]


async def compare(one: Served, keys: Sequence[str], plan: Plan, bus: str, advance: Callable[[], None]) -> Outcome:
    """Alternate between rounds without and with the flood; `advance` is called after each pair."""
    askers = [await Asker.connected(one.url, keys[0]) for _ in range(QUIET_SESSIONS)]
    await quiet(askers, plan)  # not counted
    outcome = Outcome(bus, [], [], Counter())
    for _ in range(plan.rounds):
        outcome.alone.extend(await quiet(askers, plan))
        flood = Flood(one.url, keys[1], plan)
        flooding = asyncio.create_task(flood.run())
        try:
            await asyncio.wait([flooding], timeout=SETTLE_S)
            outcome.flooded.extend(await quiet(askers, plan))
        finally:
            flooding.cancel()
            await asyncio.wait([flooding])
        outcome.flood.update(flood.ended)
        await asyncio.sleep(SETTLE_S)
        advance()
    for asker in askers:
        await asker.close()
    return outcome


async def fairness(options: Sequence[str], plan: Plan, *, kafka: KafkaSettings | None, path: Path | None) -> None:
    """Measure embedded and, if there is one, over Kafka, and tell."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        keys = [add(folder / "keys.json", tenant).key for tenant in ("quiet", "loud")]
        # What an address may do would hold back the flood before its tenant's turns meet anybody's.
        free = ["gateway.max_sessions_per_client=1000", "gateway.requests_per_s=100000", f"gateway.grace_s={SETTLE_S}"]
        own = [part for one in (*free, f"gateway.keys_file={folder / 'keys.json'}") for part in ("--set", one)]
        for bus in (None, kafka) if kafka else (None,):
            title = "Kafka" if bus else "embedded"
            async with served([*options, *own], folder, bus) as one:
                with measuring(f"flooding, {title}", plan.rounds) as advance:
                    outcomes.append(await compare(one, keys, plan, title, advance))
    result = {outcome.bus: _figures(outcome) for outcome in outcomes}
    told(
        {"bench": "fairness", "plan": plan._asdict(), "outcomes": result},
        [_table(outcome) for outcome in outcomes],
        [
            *(
                f"{outcome.bus}: {sum(outcome.flood.values())} turns of the flood ended meanwhile: "
                + ", ".join(f"{count} {how}" for how, count in outcome.flood.most_common())
                for outcome in outcomes
            ),
            "clients in another process than what they speak to; open loop, rounds without and with the flood in turns",
        ],
        path,
    )


def _figures(outcome: Outcome) -> dict[str, Any]:
    return {
        "alone": _spread_of(outcome.alone),
        "flooded": _spread_of(outcome.flooded),
        "quiet_not_answered": sum(not turn.answered for turn in outcome.alone + outcome.flooded),
        "flood": dict(outcome.flood),
    }


def _spread_of(turns: Sequence[Ended]) -> dict[str, float]:
    return spread(_first_ms(turns))._asdict()


def _first_ms(turns: Sequence[Ended]) -> list[float]:
    """Milliseconds to the first token; of what was not answered, to the end that it had."""
    return [1000 * (turn.last if turn.first is None else turn.first) for turn in turns]


def _table(outcome: Outcome) -> Table:
    rows = {"alone": spread(_first_ms(outcome.alone)), "beside the flood": spread(_first_ms(outcome.flooded))}
    lost = sum(not turn.answered for turn in outcome.flooded)
    return table(f"the quiet tenant's first token, {outcome.bus}; {lost} not answered", rows, unit="ms")
