"""A gateway is killed with -9 in mid-answer, and its clients go on at another one: processes, sockets and Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.apps.gateway.checks import Told
from tests.apps.gateway.deployed import ANSWER, Deployment, deployed
from tests.apps.gateway.harness import user
from tests.apps.processes import Penstock
from tests.services import KafkaService

DEADLINE_S = 100
CLIENTS = 6


@pytest.fixture
async def deployment(kafka: KafkaService, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Give a deployment of two gateways."""
    async with deployed(kafka, tmp_path) as running:
        yield running


class Talker:
    """A client that checks all it is told, over however many connections, as if there were one."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.told = Told()
        self.socket: ClientConnection

    @property
    def deltas(self) -> list[str]:
        """The pieces of text so far."""
        return [event["delta"] for event in self.told.events if event["type"] == "response.output_text.delta"]

    async def connect(self, gateway: Penstock) -> None:
        """Connect, or come back."""
        query = ""
        if events := self.told.events:
            query = f"?resume={events[0]['session']['id']}&last_event_id={events[-1]['event_id']}"
        url = f"{gateway.url}/v1/realtime{query}"
        self.socket = await self._stack.enter_async_context(connect(url, compression=None))

    async def until(self, kind: str, times: int = 1) -> None:
        """Read until so many events of a kind have come on this connection."""
        while times:
            event = json.loads(await self.socket.recv())
            assert event["type"] != "error", event
            self.told.add(event)
            times -= event["type"] == kind

    async def ask(self) -> None:
        """Ask, with ids that stand for the events."""
        await self.send({"type": "conversation.item.create", "event_id": "item", "item": user("hi", id="u1")})
        await self.send({"type": "response.create", "event_id": "ask"})

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event."""
        await self.socket.send(json.dumps(event))


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_gateway_is_killed_in_mid_answer(deployment: Deployment) -> None:
    """Kill -9 costs a reconnect: at the other gateway each client gets the rest, each token once, and one end.

    What it sends again under the same ids, because it does not know whether it had arrived, is not done again; the
    conversation goes on.
    """
    first, second = deployment.gateways
    async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
        await asyncio.gather(first.ready(), second.ready())
        talkers = [Talker(stack) for _ in range(CLIENTS)]
        for talker in talkers:
            await talker.connect(first)
            await talker.ask()
        answers = [await deployment.asked() for _ in talkers]
        for pieces, reply_to in answers:
            await deployment.say(pieces[:3], reply_to)
        await asyncio.gather(
            *(talker.until("response.output_text.delta", times=1 + n % 3) for n, talker in enumerate(talkers))
        )
        await asyncio.to_thread(first.kill)
        for pieces, reply_to in answers:
            await deployment.say(pieces[3:5], reply_to)
        for talker in talkers:
            with pytest.raises(ConnectionClosed):
                await talker.until("response.done")
            await talker.connect(second)
            await talker.ask()
        for pieces, reply_to in answers:
            await deployment.say(pieces[5:], reply_to)
        await asyncio.gather(*(talker.until("response.done") for talker in talkers))
        for talker in talkers:
            assert "".join(talker.deltas) == ANSWER
            await talker.send({"type": "response.create"})
        for pieces, reply_to in [await deployment.asked() for _ in talkers]:
            await deployment.say(pieces, reply_to)
        await asyncio.gather(*(talker.until("response.done") for talker in talkers))

    assert all(talker.told.types().count("response.done") == 2 for talker in talkers)
    assert len(deployment.stages.turns) == 2 * CLIENTS
    assert [said.text for said in deployment.stages.turns[-1].conversation] == ["hi", ANSWER]
    assert deployment.stages.cancels.empty()


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_gateway_is_stopped_in_mid_answer(deployment: Deployment) -> None:
    """SIGTERM closes the clients with 1012 before the process ends, and their answers go on at the other gateway."""
    first, second = deployment.gateways
    async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
        await asyncio.gather(first.ready(), second.ready())
        talker = Talker(stack)
        await talker.connect(first)
        await talker.ask()
        pieces, reply_to = await deployment.asked()
        await deployment.say(pieces[:2], reply_to)
        await talker.until("response.output_text.delta", times=2)
        stopping = asyncio.create_task(asyncio.to_thread(first.stop))
        with pytest.raises(ConnectionClosed) as closed:
            await talker.until("response.done")
        await talker.connect(second)
        await deployment.say(pieces[2:], reply_to)
        await talker.until("response.done")
        assert await stopping == 0

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert "".join(talker.deltas) == ANSWER
    assert deployment.stages.cancels.empty()
