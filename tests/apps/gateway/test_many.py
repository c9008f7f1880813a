"""Many sessions at once over one gateway."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from pipeline.memory import MemoryBus
from tests.apps.gateway.harness import Running, connected, gateway, text_of, until

SESSIONS = 200
TURNS = 2
ROUNDS = 4
GROWTH_BLOCKS = 4000
"""Of 200 sessions with 400 turns per round; a session that stayed would be some hundred blocks of memory."""


async def converse(running: Running, number: int) -> list[str]:
    """Hold a conversation; every tenth client checks each of its events against the SDK's types, too."""
    async with connected(running, patience_s=150.0) as client:
        client.told.strict = number % 10 == 0
        return [text_of(await client.ask(f"{number}.{turn}")) for turn in range(TURNS)]


def forget(bus: MemoryBus) -> None:
    """Drop what the bus keeps: what it holds for later readers is no leak."""
    for logs in bus._logs.values():
        for log in logs:
            log.base, log.bytes = log.end, 0
            log.records.clear()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_200_sessions_are_answered_in_order_and_memory_stays() -> None:
    """All are answered, each in its order and with its own words, and what they took is given back."""
    blocks: list[int] = []
    bus = MemoryBus()
    async with gateway(bus=bus, patience_s=220.0, grace_s=0.01) as running:
        for _ in range(ROUNDS):
            said = await asyncio.gather(*(converse(running, number) for number in range(SESSIONS)))
            assert said == [[f"You said: {number}.{turn}" for turn in range(TURNS)] for number in range(SESSIONS)]
            await until(lambda: not len(running.hub.seats))
            running.stages.forget()
            forget(bus)
            gc.collect()
            blocks.append(sys.getallocatedblocks())

    assert blocks[-1] - blocks[1] < GROWTH_BLOCKS, blocks
