"""The gateway with the real loop between it and a stage: refusals, cancels, deadlines and failures as they travel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pipeline.errors import PromptTooLong
from pipeline.loop import Loop
from pipeline.memory import MemoryBus
from pipeline.messages import Turn
from pipeline.stage import Stage, Stream
from pipeline.topics import TURNS
from tests.apps.gateway.harness import Running, connected, echo, gateway, spoken, text_of, user

WINDOW = 100


async def answer(turn: Turn) -> Stream:
    """Answer as all stages together would; some words have a meaning of their own."""
    *_, last = turn.conversation
    if len(last.text) > WINDOW:
        raise PromptTooLong(got=len(last.text), limit=WINDOW)
    if last.text == "crash":
        raise ZeroDivisionError
    for number, message in enumerate(spoken(turn, "one two three") if last.text == "slowly" else echo(turn)):
        if number and last.text == "slowly":
            await asyncio.sleep(60)
        yield message


@asynccontextmanager
async def served(**changed: Any) -> AsyncGenerator[Running, None]:
    """Run a gateway and a loop on one memory bus."""
    bus = MemoryBus()
    loop = Loop(Stage(name="all", reads=TURNS, each=answer), bus)
    async with asyncio.TaskGroup() as tasks, gateway(bus=bus, answer=lambda turn: (), **changed) as running:
        tasks.create_task(loop.run())
        yield running
        loop.drain()


async def test_a_prompt_beyond_the_window_is_refused_in_words() -> None:
    """A message too long for the model's context fails its response with a code, and the next turn is served."""
    async with served() as running, connected(running) as client:
        refused = await client.ask("x" * 200)
        answered = await client.ask("short")

    error = refused["status_details"]["error"]
    assert refused["status"] == "failed"
    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")
    assert "200 tokens" in error["message"]
    assert text_of(answered) == "You said: short"


async def test_a_cancel_stops_the_stage_in_the_middle() -> None:
    """A cancelled answer ends as cancelled with what was said so far, at once."""
    async with served() as running, connected(running) as client:
        await client.say("slowly")
        await client.send("response.create")
        await client.until("response.output_text.delta")
        await client.send("response.cancel")
        response = (await client.until("response.done"))["response"]
        answered = await client.ask("again")

    assert (response["status"], text_of(response)) == ("cancelled", "one")
    assert text_of(answered) == "You said: again"


async def test_a_deadline_ends_the_turn() -> None:
    """A turn that is not ready at its deadline ends as failed, and says that it was the time."""
    async with served(turn_timeout_s=0.5) as running, connected(running) as client:
        response = await client.ask("slowly")

    assert (response["status"], text_of(response)) == ("failed", "one")
    assert response["status_details"]["error"]["code"] == "deadline_exceeded"


async def test_a_crash_in_a_stage_fails_one_turn() -> None:
    """A stage that fails for good costs its turn alone."""
    async with served() as running, connected(running) as client:
        failed = await client.ask("crash")
        answered = await client.ask("again")

    assert (failed["status"], failed["status_details"]["error"]["type"]) == ("failed", "server_error")
    assert text_of(answered) == "You said: again"


async def test_a_response_beside_runs_while_the_conversation_answers() -> None:
    """A response outside the conversation does not wait for the one in it."""
    async with served() as running, connected(running) as client:
        await client.say("slowly")
        await client.send("response.create")
        await client.until("response.output_text.delta")
        await client.send("response.create", response={"conversation": "none", "input": [user("beside")]})
        response = (await client.until("response.done"))["response"]
        await client.send("response.cancel")
        await client.until("response.done")

    assert (response["conversation_id"], text_of(response)) == (None, "You said: beside")
