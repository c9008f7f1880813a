"""How a gateway stops: what runs may end, nothing new begins, and everybody is told."""

from __future__ import annotations

import asyncio

import websockets

from tests.apps.gateway.harness import DEADLINE_S, connected, gateway, spoken, text_of
from tests.apps.gateway.test_chat import chat, frames
from tests.apps.gateway.test_sockets import silent


async def test_a_turn_at_the_end_of_the_drain_is_told_its_end() -> None:
    """A turn that does not end in time fails in words, the stages give it up, and then the client is closed."""
    async with gateway(answer=silent, drain_s=0.2) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        await client.until("response.created")
        running.stop.set()
        response = (await client.until("response.done"))["response"]
        assert (response["status"], response["status_details"]["error"]["code"]) == ("failed", "shutting_down")
        assert (await client.closed())[0] == 1012
        cancel = await asyncio.wait_for(running.stages.cancels.get(), DEADLINE_S)
        assert cancel.turn == response["id"]


async def test_a_cancelled_turn_at_the_end_of_the_drain_is_cancelled() -> None:
    """What the client has given up itself does not fail."""
    async with gateway(answer=silent, drain_s=0.2) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        await client.until("response.created")
        await client.send("response.cancel")
        running.stop.set()
        assert (await client.until("response.done"))["response"]["status"] == "cancelled"
        assert (await client.closed())[0] == 1012


async def test_nothing_begins_in_a_drain() -> None:
    """While a turn is let end, another one is refused; the one that runs is not disturbed."""
    async with gateway(answer=silent, drain_s=5.0) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
        running.stop.set()
        await asyncio.sleep(0.1)
        await client.send("response.create", event_id="late", response={"conversation": "none"})
        error = (await client.until("error"))["error"]
        for message in spoken(turn, "here it is"):
            await running.stages.say(message, running.stages.headers[0]["reply-to"])
        assert text_of((await client.until("response.done"))["response"]) == "here it is"
        assert (await client.closed())[0] == 1012

    assert (error["code"], error["event_id"]) == ("shutting_down", "late")
    assert error["retry_after"] > 0
    assert len(running.stages.turns) == 1


async def test_lines_that_wait_are_refused_in_a_drain() -> None:
    """Each line of a chat gets its end: that under way the answer, the others word that the server stops."""
    async with gateway(answer=silent, drain_s=0.3) as running, chat(running) as socket:
        for line in ("one", "two", "three"):
            await socket.send(line)
        await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
        await asyncio.sleep(0.05)
        running.stop.set()
        told = [await frames(socket) for _ in range(3)]
        async with asyncio.timeout(DEADLINE_S):
            await socket.wait_closed()

    assert [frame[0].partition(":")[0] for frame in told] == ["<ERROR shutting_down"] * 3
    assert isinstance(socket, websockets.ClientConnection)
    assert socket.close_code == 1012
    assert len(running.stages.turns) == 1
