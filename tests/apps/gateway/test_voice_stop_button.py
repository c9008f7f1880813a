"""Clients with a button that stops the answer: what they send for it silences it at once, and the next answer comes."""

from __future__ import annotations

import asyncio
from typing import Any

from agents.realtime import RealtimeAgent, RealtimeRunner

from pipeline.memory import MemoryBus
from tests.apps.gateway.checks import Event, Told
from tests.apps.gateway.harness import DEADLINE_S
from tests.apps.gateway.test_voice_sdks import shown
from tests.apps.gateway.voiced import voiced

LONG = " ".join(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"] * 12)


async def stopped(session: Any) -> list[Event]:
    """Ask, stop the answer at its first sound, ask again; return what was sent until the second answer is whole."""
    sent, interrupted = list[Event](), False
    await session.send_message(LONG)
    async for event in session:
        assert event.type != "error", event
        if event.type == "audio" and not interrupted:
            interrupted = True
            await session.interrupt()
            await session.send_message("two three")
        if (frame := shown(event)) is None:
            continue
        sent.append(frame)
        if frame["type"] == "response.done" and frame["response"]["status"] == "completed":
            break
    return sent


async def test_agents_sdk_stops_the_answer() -> None:
    """`session.interrupt()` sends a truncation and no cancel: it ends the answer, for which the next one waits."""
    async with voiced(MemoryBus()) as (running, _):
        runner = RealtimeRunner(RealtimeAgent(name="A", instructions="Be brief."))
        config: Any = {"api_key": "none", "url": f"{running.ws}/v1/realtime?model=penstock-demo"}
        async with asyncio.timeout(DEADLINE_S), await runner.run(model_config=config) as session:
            sent = await stopped(session)

    told = Told()
    for event in sent:
        told.add(event)
    done = [event["response"] for event in sent if event["type"] == "response.done"]
    assert [response["status"] for response in done] == ["cancelled", "completed"]
    assert done[0]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done[1]["output"][0]["content"][0]["transcript"] == "You said: two three"
    assert len(told.audio(done[0]["output"][0]["id"])) < len(LONG.split()) * 9600 / 2
