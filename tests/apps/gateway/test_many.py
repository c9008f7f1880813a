"""Many sessions at once over one gateway."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from tests.apps.gateway.harness import Running, connected, gateway, text_of

SESSIONS = 200
TURNS = 3
ROUNDS = 4
GROWTH_BYTES = 1_000_000
"""Of 200 sessions with 600 turns per round: a leak of a conversation each would be more."""


async def converse(running: Running, number: int) -> list[str]:
    """Hold a conversation; every event of it is checked."""
    async with connected(running) as client:
        return [text_of(await client.ask(f"{number}.{turn}")) for turn in range(TURNS)]


async def test_200_sessions_are_answered_in_order_and_memory_stays() -> None:
    """All are answered, each in its order and with its own words, and what they took is given back."""
    async with gateway(grace_s=0.01, max_sessions=1000) as running:
        traced: list[int] = []
        tracemalloc.start()
        try:
            for _ in range(ROUNDS):
                said = await asyncio.gather(*(converse(running, number) for number in range(SESSIONS)))
                assert said == [[f"You said: {number}.{turn}" for turn in range(TURNS)] for number in range(SESSIONS)]
                async with asyncio.timeout(10):
                    while len(running.hub.seats):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                running.stages.turns.clear()
                running.stages.headers.clear()
                running.stages.asked = asyncio.Queue()
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()

    assert traced[-1] - traced[1] < GROWTH_BYTES, traced
