"""A gateway on a real port over a memory bus, stages that answer as they are told, and a client that checks all."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import websockets
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from apps.gateway.asgi import StaticMount, create_app
from apps.gateway.hub import Hub
from apps.gateway.serve import serve
from apps.gateway.settings import GatewaySettings
from pipeline.bus import Bus, Part
from pipeline.headers import REPLY_TO
from pipeline.memory import MemoryBus
from pipeline.messages import Cancel, Delta, Finished, Message, Turn, Usage
from pipeline.topics import CONTROL, REPLIES, TURNS
from tests.apps.gateway.checks import Told

DEADLINE_S = 30.0
MODELS = ("penstock-demo", "penstock-tiny")
USAGE = Usage(prompt_tokens=7, output_tokens=3, cached_tokens=2)


def echo(turn: Turn) -> Iterable[Message]:
    """Answer with the last words, in pieces of a word."""
    text = f"You said: {turn.conversation[-1].text}"
    yield from spoken(turn, text)


def spoken(turn: Turn, text: str, **end: Any) -> Iterable[Message]:
    """Answer with `text`, in pieces of a word."""
    at = 0
    for index, piece in enumerate(re.findall(r"^\S+| \S+", text)):
        yield Delta(turn.session, turn.turn, at=at, text=piece, index=index + 1)
        at += len(piece)
    yield Finished(
        turn.session, turn.turn, **{"status": "completed", "reason": "stop", "usage": USAGE, "length": at, **end}
    )


Answering = Callable[[Turn], Iterable[Message]]


class Stages:
    """Stands in for all stages: each turn is answered with what `answer` makes of it; what was read is kept."""

    def __init__(self, bus: Bus, answer: Answering = echo) -> None:
        self.bus, self.answer = bus, answer
        self.turns: list[Turn] = []
        self.headers: list[Mapping[str, str]] = []
        self.cancels: asyncio.Queue[Cancel] = asyncio.Queue()
        self.asked: asyncio.Queue[Turn] = asyncio.Queue()
        self.ready = asyncio.Event()

    async def say(self, message: Message, reply_to: str | int) -> None:
        """Publish a message to a gateway."""
        value = REPLIES.encode(message)
        await (await self.bus.publish(REPLIES.name, value, key=message.session, headers={}, partition=int(reply_to)))

    def forget(self) -> None:
        """Keep nothing of what was read so far."""
        self.turns.clear()
        self.headers.clear()
        self.asked = asyncio.Queue()

    async def run(self) -> None:
        """Answer until cancelled."""
        parts: dict[Part, int | None] = {
            Part(TURNS.name, n): None for n in range(await self.bus.partitions(TURNS.name))
        }
        parts[Part(CONTROL.name, 0)] = None
        async with self.bus.reader(parts) as reader:
            self.ready.set()
            while True:
                for record in await reader.poll(limit=500, timeout=1.0):
                    if record.part.topic == CONTROL.name:
                        self.cancels.put_nowait(CONTROL.decode(record.value))
                        continue
                    turn = TURNS.decode(record.value)
                    self.turns.append(turn)
                    self.headers.append(record.headers)
                    self.asked.put_nowait(turn)
                    for message in self.answer(turn):
                        await self.say(message, record.headers[REPLY_TO])


@dataclass
class Running:
    """A gateway that runs."""

    host: str
    port: int
    app: Starlette
    bus: Bus
    stages: Stages
    stop: asyncio.Event
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    @property
    def hub(self) -> Hub:
        """Return its hub."""
        hub = self.app.state.hub
        assert isinstance(hub, Hub)
        return hub

    @property
    def ws(self) -> str:
        """Return the address of its sockets."""
        return f"ws://{self.host}:{self.port}"

    @property
    def http(self) -> str:
        """Return the address of its pages."""
        return f"http://{self.host}:{self.port}"

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.registry.get_sample_value(f"penstock_gateway_{name}", labels) or 0.0


def settings(**changed: Any) -> GatewaySettings:
    """Return settings for a gateway of a test."""
    return GatewaySettings(**{"port": 0, "drain_s": 2.0, "drain_notice_s": 0.1, **changed})


@asynccontextmanager
async def gateway(
    *,
    bus: Bus | None = None,
    answer: Answering = echo,
    ready: Callable[[], Awaitable[dict[str, str]]] | None = None,
    static: tuple[StaticMount, ...] = (),
    patience_s: float = 50.0,
    **changed: Any,
) -> AsyncGenerator[Running, None]:
    """Run a gateway and stand-ins for its stages."""
    bus = bus or MemoryBus()
    stages, stop, registry = Stages(bus, answer), asyncio.Event(), CollectorRegistry()
    config = settings(**changed)
    app = create_app(bus, config, models=MODELS, ready=ready, static=static, registry=registry)
    address: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(patience_s), asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(stages.run())
        await stages.ready.wait()
        tasks.create_task(serve(app, config, stop=stop, started=lambda *at: address.set_result(at)))
        host, port = await address
        try:
            yield Running(host, port, app, bus, stages, stop, registry)
        finally:
            stop.set()
            answering.cancel()


class Client:
    """A Realtime client that checks each event it is told."""

    def __init__(self, socket: websockets.ClientConnection, patience_s: float = DEADLINE_S) -> None:
        self.socket, self._patience = socket, patience_s
        self.told = Told()

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def say(self, text: str, **fields: Any) -> None:
        """Send what a user says."""
        await self.send("conversation.item.create", item=user(text, **fields))

    async def next(self) -> Mapping[str, Any]:
        """Return the next event."""
        async with asyncio.timeout(self._patience):
            return self.told.add(json.loads(await self.socket.recv()))

    async def until(self, kind: str) -> Mapping[str, Any]:
        """Return the next event of a kind; those before it are checked, too."""
        while True:
            event = await self.next()
            if event["type"] == kind:
                return event
            assert event["type"] != "error" or kind == "error", event

    async def ask(self, text: str, **response: Any) -> Mapping[str, Any]:
        """Say something and return the whole answer's `response`."""
        await self.say(text)
        await self.send("response.create", response=response)
        return (await self.until("response.done"))["response"]  # type: ignore[no-any-return]

    async def _drain(self) -> None:
        while True:
            await self.next()

    async def closed(self) -> tuple[int, str]:
        """Wait for the close; events before it are checked."""
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await self._drain()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nobody tells of."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def user(text: str, **fields: Any) -> dict[str, Any]:
    """Return an item that a user says."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **fields}


def text_of(response: Mapping[str, Any]) -> str:
    """Return the text of a response that is done."""
    return str(response["output"][0]["content"][0]["text"])


@asynccontextmanager
async def connected(
    running: Running, query: str = "", *, patience_s: float = DEADLINE_S, **options: Any
) -> AsyncGenerator[Client, None]:
    """Connect a client, which has its session already."""
    async with websockets.connect(f"{running.ws}/v1/realtime{query}", open_timeout=patience_s, **options) as socket:
        client = Client(socket, patience_s)
        assert (await client.next())["type"] == "session.created"
        yield client
