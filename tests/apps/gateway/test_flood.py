"""A client that sends more than it may: it waits, and nobody else does."""

from __future__ import annotations

import asyncio
import time

from tests.apps.gateway.harness import Client, connected, gateway

FLOOD = 2000


async def test_a_flood_waits_with_its_sender() -> None:
    """Above its rate a client is read no faster than that: each event is answered, others are served meanwhile."""
    async with (
        gateway(requests_per_s=100.0, requests_burst=20) as running,
        connected(running) as flood,
        connected(running, local_addr=("127.0.0.2", 0)) as other,
    ):
        began = time.monotonic()
        sending = asyncio.create_task(_flood(flood))
        worst = 0.0
        for _ in range(5):
            sent = time.monotonic()
            await other.send("response.cancel")
            await other.until("error")
            worst = max(worst, time.monotonic() - sent)
        await asyncio.sleep(0.5)
        taken = sum(
            running.count("errors_total", code=code) for code in ("rate_limit_exceeded", "response_cancel_not_active")
        )
        lasted = time.monotonic() - began
        sending.cancel()

    assert taken <= 20 + 5 + 100 * lasted + 5
    assert worst < 1.0


async def _flood(client: Client) -> None:
    for _ in range(FLOOD):
        await client.send("response.cancel")
