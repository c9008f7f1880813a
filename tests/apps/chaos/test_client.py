"""The client that does not give up, against a gateway made up for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from apps.chaos import client as module
from apps.chaos.client import Client
from apps.chaos.line import SessionLost
from apps.chaos.record import Record, Turn
from tests.apps.chaos.runs import QUESTION

DEADLINE_S = 20.0
SESSION = "sess_7"


class Gateway:
    """Answers as told: `script` is called with each connection's number, its query and a way to send."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.queries: list[dict[str, str]] = []
        self.script: Callable[[int, ServerConnection], Any]
        self._events = 0

    async def connected(self, socket: ServerConnection) -> None:
        """A client has come."""
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        self.queries.append({name: values[0] for name, values in query.items()})
        await self.script(len(self.queries), socket)

    async def send(self, socket: ServerConnection, kind: str, **fields: Any) -> None:
        """Send an event."""
        self._events += 1
        await socket.send(json.dumps({"type": kind, "event_id": f"event_{self._events}", **fields}))

    async def hear(self, socket: ServerConnection, count: int) -> None:
        """Take so many events of the client."""
        for _ in range(count):
            self.heard.append(json.loads(await socket.recv()))

    async def begin(self, socket: ServerConnection) -> None:
        """Open a session."""
        await self.send(socket, "session.created", session={"id": SESSION})

    async def acknowledge(self, socket: ServerConnection) -> None:
        """Say that the item and the response are there."""
        await self.send(socket, "conversation.item.added", item={"id": "item_0_0_0"})
        await self.send(socket, "response.created", response={"id": "resp_1", "metadata": {"turn": "0.0"}})

    async def say(self, socket: ServerConnection, text: str) -> None:
        """A piece of the answer."""
        await self.send(socket, "response.output_text.delta", response_id="resp_1", delta=text)

    async def end(self, socket: ServerConnection, text: str, status: str = "completed", **more: Any) -> None:
        """The end of the answer."""
        output = [{"content": [{"text": text}]}]
        response = {"id": "resp_1", "status": status, "output": output, "usage": {"output_tokens": 2}, **more}
        await self.send(socket, "response.done", response=response)


@pytest.fixture
def gateway() -> Gateway:
    """A gateway whose script the test sets."""
    return Gateway()


@pytest.fixture
async def server(gateway: Gateway) -> AsyncIterator[Server]:
    """It listens."""
    async with serve(gateway.connected, "127.0.0.1", 0) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """A client of it, that notes into `record_of`."""
    (listening,) = server.sockets
    url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
    client = Client(0, [url], Record(), time.monotonic, tokens=8)
    yield client
    await client.close()


def record_of(client: Client) -> Record:
    """What it has noted."""
    return client._record


async def answered(client: Client) -> Turn:
    """One turn, asked in a new session."""
    turn = Turn("0.0", client=0, question=QUESTION, asked=0.0)
    async with asyncio.timeout(DEADLINE_S):
        await client.open()
        await client.ask(turn)
    return turn


async def test_an_answer_is_noted_with_its_pieces_and_its_end(gateway: Gateway, client: Client) -> None:
    """What was asked reaches the gateway as it should, and the answer is all there."""

    async def script(_: int, socket: ServerConnection) -> None:
        await gateway.begin(socket)
        await gateway.hear(socket, 2)
        await gateway.acknowledge(socket)
        for text in ("A ", "tent."):
            await gateway.say(socket, text)
        await gateway.end(socket, "A tent.")
        await socket.wait_closed()

    gateway.script = script
    turn = await answered(client)

    item, response = gateway.heard
    assert item["item"]["content"] == [{"type": "input_text", "text": QUESTION.text}]
    assert response["response"] == {
        "output_modalities": ["text"],
        "max_output_tokens": 8,
        "metadata": {"turn": "0.0"},
        "temperature": 0.0,
        "seed": 1,
    }
    assert (turn.text, turn.said, turn.ends, turn.tokens) == ("A tent.", "A tent.", ["completed"], 2)
    assert (turn.session, turn.response) == (SESSION, "resp_1")
    assert record_of(client).reconnects == 0


async def test_a_lost_socket_is_resumed_after_the_last_event(gateway: Gateway, client: Client) -> None:
    """The session and the last event's id stand in the query; what was acknowledged is not sent again."""

    async def script(number: int, socket: ServerConnection) -> None:
        if number == 1:
            await gateway.begin(socket)
            await gateway.hear(socket, 2)
            await gateway.acknowledge(socket)
            await gateway.say(socket, "A ")
            socket.transport.abort()
            return
        await gateway.say(socket, "tent.")
        await gateway.end(socket, "A tent.")
        await gateway.hear(socket, 1)

    gateway.script = script
    turn = await answered(client)

    assert gateway.queries == [{}, {"resume": SESSION, "last_event_id": "event_4"}]
    assert (turn.text, turn.ends, len(gateway.heard)) == ("A tent.", ["completed"], 2)
    assert record_of(client).reconnects == 1
    assert [number for _, number in turn.via] == [0, 0]


async def test_what_was_not_acknowledged_is_sent_again_under_the_same_id(gateway: Gateway, client: Client) -> None:
    """So that the gateway can tell that it has it already."""

    async def script(number: int, socket: ServerConnection) -> None:
        if number == 1:
            await gateway.begin(socket)
            await gateway.hear(socket, 2)
            socket.transport.abort()
            return
        await gateway.hear(socket, 2)
        await gateway.acknowledge(socket)
        await gateway.say(socket, "A tent.")
        await gateway.end(socket, "A tent.")
        await socket.wait_closed()

    gateway.script = script
    await answered(client)

    assert gateway.heard[:2] == gateway.heard[2:]
    assert all(event["event_id"] for event in gateway.heard)


async def test_a_gateway_that_leaves_is_left(gateway: Gateway, client: Client) -> None:
    """What it would not begin any more is asked for elsewhere, as an event of its own: the former was answered."""

    async def script(number: int, socket: ServerConnection) -> None:
        if number == 1:
            await gateway.begin(socket)
            await gateway.hear(socket, 2)
            await gateway.send(socket, "conversation.item.added", item={"id": "item_0_0_0"})
            refused = {"code": "shutting_down", "message": "it restarts", "event_id": gateway.heard[1]["event_id"]}
            await gateway.send(socket, "error", error=refused)
            await socket.wait_closed()
            return
        await gateway.hear(socket, 1)
        await gateway.acknowledge(socket)
        await gateway.say(socket, "A tent.")
        await gateway.end(socket, "A tent.")
        await socket.wait_closed()

    gateway.script = script
    turn = await answered(client)
    assert (turn.ends, turn.error) == (["completed"], "")
    assert [event["type"] for event in gateway.heard[1:]] == ["response.create"] * 2
    assert gateway.heard[1]["event_id"] != gateway.heard[2]["event_id"]
    assert gateway.heard[1]["response"] == gateway.heard[2]["response"]


async def test_an_event_that_comes_twice_is_counted(gateway: Gateway, client: Client) -> None:
    """And so is a second end."""

    async def script(_: int, socket: ServerConnection) -> None:
        await gateway.begin(socket)
        await gateway.hear(socket, 2)
        await gateway.acknowledge(socket)
        gateway._events -= 1
        await gateway.say(socket, "A tent.")
        await gateway.end(socket, "A tent.")
        await socket.wait_closed()

    gateway.script = script
    await answered(client)
    assert record_of(client).repeated_events == 1


async def test_a_turn_that_fails_is_noted_with_why(gateway: Gateway, client: Client) -> None:
    """The error in the end says it."""

    async def script(_: int, socket: ServerConnection) -> None:
        await gateway.begin(socket)
        await gateway.hear(socket, 2)
        await gateway.acknowledge(socket)
        await gateway.end(socket, "", "failed", status_details={"error": {"code": "late", "message": "too late"}})
        await socket.wait_closed()

    gateway.script = script
    turn = await answered(client)
    assert (turn.ends, turn.error, turn.complete) == (["failed"], "late: too late", False)


async def test_a_session_that_cannot_be_resumed_is_lost(gateway: Gateway, client: Client) -> None:
    """The gateway says so plainly, and that breaks a guarantee."""

    async def script(number: int, socket: ServerConnection) -> None:
        if number == 1:
            await gateway.begin(socket)
            await gateway.hear(socket, 2)
            socket.transport.abort()
            return
        await gateway.send(socket, "error", error={"code": "resume_failed", "message": "gone"})
        await socket.close(4410)

    gateway.script = script
    with pytest.raises(SessionLost, match="resume_failed: gone"):
        await answered(client)


async def test_an_answer_that_never_ends_is_given_up(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run does not wait for it for ever."""
    monkeypatch.setattr(module, "ANSWER_S", 0.2)

    async def script(_: int, socket: ServerConnection) -> None:
        await gateway.begin(socket)
        await socket.wait_closed()

    gateway.script = script
    with pytest.raises(SessionLost, match="nothing more came"):
        await answered(client)
