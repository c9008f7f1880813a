"""Many times what it can do, for minutes: are refusals typed and prompt, is memory flat, and is nothing left over?

Real WebSocket clients in this process, `penstock up` in another. First it is seen how many answers a second there can
be; then turns come by chance at a multiple of that, on their own clock. Sessions end and others begin, some clients are
gone without a word, and some ask and never read.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from websockets.exceptions import WebSocketException

from apps.bench.client import Asker, Ended, Unread
from apps.bench.report import measuring, spread, table, told
from apps.bench.served import Served, open_files, resident_mb, served
from apps.bench.soak_verdict import Verdict, verdicts
from pipeline.errors import PenstockError

QUESTIONS = (
    "What are your opening hours?",
    "How do I wash a down jacket?",
    "What does a tent for two cost, and how heavy is it?",
    "Where is my order 48213?",
)
SEED = 4
CALIBRATED_S, WARM_S = 10.0, 3.0
BUSY = 48
"""Sessions that ask as fast as they are answered, to see what can be done."""
TURNS = 20
"""Of a session on the average, after which another one begins."""
VANISHING = 0.02
"""Share of turns whose client is gone before the end."""
GRACE_S = 3.0
IDLE_S = 60.0
SAMPLE_S = 1.0
NOTHING = ("gateway_turns_active", "gateway_connections", "gateway_sessions", "llm_running", "llm_waiting")


class Overwhelmed(PenstockError):
    """It did not hold."""


class Plan(NamedTuple):
    """How much: `times` what can be done for `minutes`, from `sessions` at once and `unread` that never read.

    A turn may wait `max_wait_s` for the model.
    """

    minutes: float = 10.0
    times: float = 10.0
    sessions: int = 300
    unread: int = 20
    tokens: int = 48
    max_wait_s: float = 2.0


class Sample(NamedTuple):
    """What the server was like, so many seconds after the start; `prefix_mb` are kept for sessions' next turns."""

    at: float
    resident_mb: float
    prefix_mb: float
    files: int
    tasks: int


class Capacity(NamedTuple):
    """Answers a second that can be made, and how long their first tokens take then (p99)."""

    per_s: float
    first_s: float


class Crowd:
    """The clients, and how their turns ended."""

    def __init__(self, url: str, plan: Plan) -> None:
        self.url, self._plan = url, plan
        self._idle: deque[Asker] = deque()
        self._chance = random.Random(SEED)
        self.ended: list[Ended] = []
        self.troubles: Counter[str] = Counter()
        self.offered = 0

    async def open(self) -> None:
        """Open all sessions."""
        for _ in range(self._plan.sessions):
            self._idle.append(await Asker.connected(self.url))

    async def close(self) -> None:
        """Hang up."""
        await asyncio.gather(*(asker.close() for asker in self._idle))
        self._idle.clear()

    async def offer(self, rate: float, seconds: float, advance: Callable[[], None]) -> None:
        """Let turns come by chance, `rate` a second on the average, and wait for the last to end.

        `advance` is called with each.
        """
        due = time.perf_counter()
        end = due + seconds
        async with asyncio.TaskGroup() as tasks:
            while (due := due + self._chance.expovariate(rate)) < end:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                self.offered += 1
                advance()
                if self._idle:
                    tasks.create_task(self._turn(self._idle.popleft(), due))
                else:
                    self.troubles["no client was free"] += 1

    async def _turn(self, asker: Asker, due: float) -> None:
        try:
            if self._chance.random() < VANISHING:
                asker = await self._vanished(asker)
            else:
                question = self._chance.choice(QUESTIONS)
                self.ended.append(await asker.attempt(question, tokens=self._plan.tokens, intended=due))
                if self._chance.random() < 1 / TURNS:
                    await asker.close()
                    asker = await Asker.connected(self.url)
        except (WebSocketException, OSError, TimeoutError) as error:
            self.troubles[type(error).__name__] += 1
            asker.vanish()
            return
        self._idle.append(asker)

    async def _vanished(self, asker: Asker) -> Asker:
        """Ask, be gone before the end, and begin anew as another."""
        await asker.begin(QUESTIONS[0], tokens=self._plan.tokens)
        await asyncio.sleep(self._chance.random())
        asker.vanish()
        self.troubles["gone by itself"] += 1
        return await Asker.connected(self.url)


class Watch:
    """Looks at the server every so often."""

    def __init__(self, one: Served) -> None:
        self._one = one
        self.samples: list[Sample] = []
        self._began = time.monotonic()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.samples.append(await self.look())
            await asyncio.sleep(SAMPLE_S)

    async def look(self) -> Sample:
        """What it is like now."""
        known = await self._one.metrics()
        pid = self._one.gateway.pid
        at = time.monotonic() - self._began
        prefix_mb = known["penstock_llm_prefix_bytes"] / 2**20
        return Sample(at, resident_mb(pid), prefix_mb, open_files(pid), int(known["penstock_tasks"]))

    async def idle(self) -> Mapping[str, float]:
        """What is still under way once nothing is, or after a minute."""
        deadline = time.monotonic() + IDLE_S
        while True:
            known = await self._one.metrics()
            left = {name: known[f"penstock_{name}"] for name in NOTHING if known[f"penstock_{name}"]}
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(SAMPLE_S)


async def capacity(url: str, plan: Plan) -> Capacity:
    """What there can be when as much is asked as is answered, and no more."""
    begun = time.perf_counter()
    stop, ended = begun + WARM_S + CALIBRATED_S, list[Ended]()

    async def ask(asker: Asker) -> None:
        while (now := time.perf_counter()) < stop:
            answer = await asker.attempt(random.choice(QUESTIONS), tokens=plan.tokens)
            if answer.answered and begun + WARM_S < now:
                ended.append(answer)

    askers = [await Asker.connected(url) for _ in range(BUSY)]
    await asyncio.gather(*(ask(asker) for asker in askers))
    seconds = time.perf_counter() - begun - WARM_S
    await asyncio.gather(*(asker.close() for asker in askers))
    first = [answer.first for answer in ended if answer.first is not None]
    return Capacity(max(0.1, len(ended) / seconds), spread(first or [0.0]).p99)


async def never_reading(url: str) -> None:
    """A client that asks and never reads, and begins anew where it is cut off."""
    while True:
        with suppress(WebSocketException, OSError, TimeoutError):
            client = await Unread.connected(url)
            try:
                await client.ask_on(QUESTIONS[1])
            finally:
                client.vanish()
        await asyncio.sleep(1.0)


async def soak(options: Sequence[str], plan: Plan, *, path: Path | None) -> None:
    """Measure, tell, and fail if it did not hold.

    Raises:
        Overwhelmed: a turn had no end, a refusal no type, memory grew, or something was left over.
    """
    own = [
        f"model.max_wait_s={plan.max_wait_s}",
        f"gateway.grace_s={GRACE_S}",
        f"gateway.chat_ttl_s={GRACE_S}",
        "gateway.max_sessions_per_client=1000",
        "gateway.requests_per_s=100000",
    ]
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        async with served([*options, *(part for one in own for part in ("--set", one))], Path(folder)) as one:
            able = await capacity(one.url, plan)
            watch = Watch(one)
            await watch.idle()
            before = await watch.look()
            crowd = Crowd(one.url, plan)
            await _soaked(crowd, watch, plan, able)
            left = await watch.idle()
            after = await watch.look()
    budget_s = plan.max_wait_s + able.first_s
    found = verdicts(crowd.ended, crowd.troubles, watch.samples, before, after, left, budget_s)
    _tell(plan, able, crowd, watch.samples, found, before, after, path)
    if failed := [verdict.what for verdict in found if not verdict.holds]:
        raise Overwhelmed("; ".join(failed))


async def _soaked(crowd: Crowd, watch: Watch, plan: Plan, able: Capacity) -> None:
    rate = plan.times * able.per_s
    Console(stderr=True).print(
        f"{able.per_s:.1f} answers/s can be made; {rate:.0f} turns/s come for {plan.minutes:g} min"
    )
    await crowd.open()
    watching = asyncio.create_task(watch.run())
    unread = [asyncio.create_task(never_reading(crowd.url)) for _ in range(plan.unread)]
    try:
        with measuring("soaking", round(rate * 60 * plan.minutes)) as advance:
            await crowd.offer(rate, 60 * plan.minutes, advance)
    finally:
        for task in (watching, *unread):
            task.cancel()
        await asyncio.gather(watching, *unread, return_exceptions=True)
        await crowd.close()


def _tell(
    plan: Plan,
    able: Capacity,
    crowd: Crowd,
    samples: Sequence[Sample],
    found: Sequence[Verdict],
    before: Sample,
    after: Sample,
    path: Path | None,
) -> None:
    how = Counter(one.code or one.status for one in crowd.ended)
    first = [1000 * one.first for one in crowd.ended if one.first is not None]
    refused = [1000 * one.last for one in crowd.ended if not one.answered]
    rows = {"admitted: first token": spread(first or [0.0])}
    if refused:
        rows["refused: told so"] = spread(refused)
    result: dict[str, Any] = {
        "bench": "soak",
        "plan": plan._asdict(),
        "capacity": able._asdict(),
        "offered": crowd.offered,
        "ended": dict(how),
        "troubles": dict(crowd.troubles),
        "ms": {name: row._asdict() for name, row in rows.items()},
        "samples": [sample._asdict() for sample in samples],
        "before": before._asdict(),
        "after": after._asdict(),
        "verdicts": [verdict._asdict() for verdict in found],
    }
    judged = Table("", "", title="verdicts", title_justify="left", show_header=False)
    for verdict in found:
        judged.add_row("holds" if verdict.holds else "[bold red]FAILS", verdict.what)
    told(
        result,
        [table("latency from the intended start", rows, unit="ms"), judged],
        [
            f"{crowd.offered} turns in {plan.minutes:g} min, {plan.times:g} times the {able.per_s:.1f}/s it can do: "
            + ", ".join(f"{count} {name}" for name, count in how.most_common()),
            f"besides: {', '.join(f'{count} {name}' for name, count in crowd.troubles.most_common()) or 'nothing'}",
            f"resident: {', '.join(f'{sample.resident_mb:.0f}' for sample in thinned(samples))} MB",
            f"of which for sessions' next turns: {', '.join(f'{one.prefix_mb:.0f}' for one in thinned(samples))} MB",
        ],
        path,
    )


def thinned(samples: Sequence[Sample], most: int = 20) -> Sequence[Sample]:
    """At most so many of them, evenly."""
    return samples[:: max(1, -(-len(samples) // most))]
