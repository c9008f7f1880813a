"""How long the model goes on with an answer that nobody wants any more, and how many tokens it chooses for nothing.

Counted from the client's event (it cancels, it is gone and does not come back within the grace, its time is over) to
the moment at which the engine's place is free, by the clock of the one machine on which all programs run. Each turn has
the engine for itself, whose model never ends by itself.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from apps.bench.client import Asker, Unanswered
from apps.bench.report import Spread, measuring, spread, table, told
from apps.bench.served import Served, served
from apps.parts import source
from apps.settings import ModelSettings
from pipeline.kafka import KafkaSettings
from stages.tokens import load_tokenizer

Kind = Literal["cancelled", "gone", "late"]
TITLES: dict[Kind, str] = {"cancelled": "explicit cancel", "gone": "gone, after the grace", "late": "past its deadline"}
QUESTION = "Tell me everything."
SEED = 11
MOST_TOKENS = 4000
GRACE_S, DEADLINE_S = 0.5, 3.0
LIMITS: dict[str, tuple[Kind, ...]] = {
    f"gateway.grace_s={GRACE_S}": ("cancelled", "gone"),
    f"gateway.turn_timeout_s={DEADLINE_S}": ("late",),
}
"""Which setting each kind needs; what is late would be so before it is cancelled."""
SOON_S = 0.3
"""A client has enough within so long after the first text."""
FREE_S = 30.0
POLL_S = 0.02


class Plan(NamedTuple):
    """How much: `n` turns of each kind."""

    n: int = 20


class Freed(NamedTuple):
    """One turn: seconds from the event to the free place and to the client's word of it, and tokens after the event."""

    place_s: float
    word_s: float | None
    wasted: float


class Seen(NamedTuple):
    """What a client saw of an answer: its id, when the first text came, and if it ended, how and when."""

    response: str = ""
    first_at: float = 0.0
    status: str | None = None
    ended_at: float | None = None


class Meter:
    """Asks, gives up in one of the ways, and sees what comes of it."""

    def __init__(self, one: Served) -> None:
        self._one = one
        self._chance = random.Random(SEED)

    async def freed(self, kind: Kind, number: int) -> Freed | None:
        """What a turn of that kind took; None if its answer ended by itself before."""
        before = (await self._one.metrics())["penstock_llm_cancelled_tokens_total"]
        async with _asker(self._one.url) as asker:
            asked = time.time()
            await asker.begin(QUESTION, tokens=MOST_TOKENS, seed=number)
            if kind == "late":
                return await self._judged(asked + DEADLINE_S, before, await _read(asker, Seen()))
            seen = await _read(asker, Seen(), self._chance.uniform(0, SOON_S))
            at = time.time()
            if seen.status is not None:
                return None
            if kind == "gone":
                asker.vanish()
                return await self._judged(at + GRACE_S, before, seen)
            await asker.send({"type": "response.cancel", "response_id": seen.response})
            return await self._judged(at, before, await _read(asker, seen))

    async def _judged(self, event: float, before: float, seen: Seen) -> Freed | None:
        """What the engine says of the turn once it is idle."""
        deadline = time.monotonic() + FREE_S
        while (known := await self._one.metrics())["penstock_llm_num_requests_running"]:
            if time.monotonic() > deadline:
                raise Unanswered(f"the engine's place is not free after {FREE_S:g} s")
            await asyncio.sleep(POLL_S)
        chosen = known["penstock_llm_cancelled_tokens_total"] - before
        released = known["penstock_llm_released_timestamp_seconds"]
        if not chosen or released < event or seen.status in ("completed", "incomplete"):
            return None
        place = released - event
        word = None if seen.ended_at is None else seen.ended_at - event
        return Freed(place, word, chosen * place / max(place, released - seen.first_at))


async def _read(asker: Asker, seen: Seen, seconds: float | None = None) -> Seen:
    """Read the answer to its end, or for so many seconds after its first text."""
    until: float | None = None
    while True:
        try:
            async with asyncio.timeout(FREE_S if until is None else max(0.0, until - time.monotonic())):
                event = await asker.event()
        except TimeoutError:
            if until is None:
                raise Unanswered(f"nothing came for {FREE_S:g} s") from None
            return seen
        if event["type"] == "response.created":
            seen = seen._replace(response=event["response"]["id"])
        elif event["type"] == "response.output_text.delta" and not seen.first_at:
            seen = seen._replace(first_at=time.time())
            until = None if seconds is None else time.monotonic() + seconds
        elif event["type"] == "response.done":
            return seen._replace(status=event["response"]["status"], ended_at=time.time())
        elif event["type"] == "error":
            raise Unanswered(f"the gateway refused: {event['error']['message']}")


@asynccontextmanager
async def _asker(url: str) -> AsyncGenerator[Asker, None]:
    asker = await Asker.connected(url)
    try:
        yield asker
    finally:
        await asker.close()


def endless(folder: Path) -> Path:
    """A model that says anything and never ends by itself: random weights, with the demo's tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(source(ModelSettings()))
    torch.manual_seed(SEED)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2 * MOST_TOKENS,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def compare(
    one: Served, kinds: Sequence[Kind], plan: Plan, advance: Callable[[], None]
) -> dict[Kind, list[Freed]]:
    """`plan.n` turns of each of `kinds`, in turns; `advance` is called after each."""
    meter = Meter(one)
    await meter.freed(kinds[0], plan.n)  # not counted
    results: dict[Kind, list[Freed]] = {kind: [] for kind in kinds}
    for number in range(plan.n):
        for kind in kinds:
            if freed := await meter.freed(kind, number):
                results[kind].append(freed)
            advance()
    return results


async def cancel(options: Sequence[str], plan: Plan, *, kafka: KafkaSettings | None, path: Path | None) -> None:
    """Measure embedded and, if there is one, over Kafka, and tell.

    Raises:
        Unanswered: a place was not given free.
    """
    results: dict[str, dict[Kind, list[Freed]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        model = await asyncio.to_thread(endless, folder / "endless")
        own = [f"model.name={model}", "model.draft=none", f"gateway.max_output_tokens={MOST_TOKENS}"]
        for bus in (None, kafka) if kafka else (None,):
            found: dict[Kind, list[Freed]] = {}
            title = "Kafka" if bus else "embedded"
            with measuring(f"cancelling, {title}", plan.n * len(TITLES)) as advance:
                for limit, kinds in LIMITS.items():
                    sets = [part for one in (*own, limit) for part in ("--set", one)]
                    async with served([*options, *sets], folder, bus) as served_one:
                        found |= await compare(served_one, kinds, plan, advance)
            results[title] = found
    _tell(plan, results, path)


def _tell(plan: Plan, results: dict[str, dict[Kind, list[Freed]]], path: Path | None) -> None:
    place: dict[str, Spread] = {}
    word: dict[str, Spread] = {}
    wasted: dict[str, Spread] = {}
    missing: list[str] = []
    for bus, found in results.items():
        for kind in get_args(Kind):
            name = f"{bus}: {TITLES[kind]}"
            if not found[kind]:
                missing.append(f"{name}: no answer was under way when it was to be given up")
                continue
            place[name] = spread(1000 * freed.place_s for freed in found[kind])
            wasted[name] = spread(freed.wasted for freed in found[kind])
            words = [1000 * freed.word_s for freed in found[kind] if freed.word_s is not None]
            if words:
                word[name] = spread(words)
    result: dict[str, Any] = {
        "bench": "cancel",
        "missing": missing,
        "plan": plan._asdict(),
        "place_ms": {name: one._asdict() for name, one in place.items()},
        "word_ms": {name: one._asdict() for name, one in word.items()},
        "wasted_tokens": {name: one._asdict() for name, one in wasted.items()},
    }
    told(
        result,
        [
            table("from the event to the engine's place free", place, unit="ms"),
            table("from the event to the client's response.done", word, unit="ms"),
            table("chosen after the event", wasted, unit="tokens"),
        ],
        [
            *missing,
            f"gone: from the end of the grace of {GRACE_S:g} s, in which the answer goes on for whoever comes back",
            "one turn at a time, of a small model with random weights that never ends by itself",
        ],
        path,
    )
