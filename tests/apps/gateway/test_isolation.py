"""What one session does or suffers, and the others do not notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from apps.gateway.commands import ResponseCreate
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.outbox import Outbox
from apps.gateway.outgoing import Outgoing
from apps.gateway.seats import Seats
from apps.gateway.session import Session
from apps.gateway.terms import Terms
from pipeline.memory import MemoryBus
from pipeline.messages import Told
from pipeline.topics import REPLIES
from tests.apps.gateway.harness import DEADLINE_S, Running, connected, gateway, settings, text_of, until


def update(levels: int) -> str:
    """Return a session.update with a tool whose parameters are nested so deep."""
    inner = "[" * (levels - 1) + "]" * (levels - 1)
    tools = '[{"type":"function","name":"a","parameters":{"x":' + inner + "}}]"
    return '{"type":"session.update","event_id":"e","session":{"type":"realtime","tools":' + tools + "}}"


@pytest.mark.parametrize("levels", [65, 210, *range(880, 1000, 20), 100_000])
async def test_deep_parameters_of_a_tool_are_refused(levels: int) -> None:
    """What is nested deeper than anybody could write again is refused at once, and the gateway serves on."""
    async with gateway() as running, connected(running) as client, connected(running) as other:
        await client.socket.send(update(levels))
        assert (await client.until("error"))["error"]["param"] in ("session.tools[0].parameters", None)
        assert text_of(await client.ask("hi")) == "You said: hi"
        assert text_of(await other.ask("hi")) == "You said: hi"


async def test_parameters_of_ordinary_depth_come_back() -> None:
    """Up to the limit, what is told of the session fits the SDK's types."""
    async with gateway() as running, connected(running) as client:
        await client.socket.send(update(64))
        await client.until("session.updated")


async def test_a_record_that_cannot_be_told_costs_one_session() -> None:
    """A record of another version, of which no event can be made, closes its own session with 1011, and no other."""
    async with gateway() as running, connected(running) as client, connected(running) as other:
        session = client.told.events[0]["session"]["id"]
        seat = running.hub.seats.get(session)
        assert seat is not None
        wrong = Told(session, "", events=({"no": "type"},), owner=seat.session.owner)
        await running.stages.say(wrong, partition(running))

        assert (await client.closed())[0] == 1011
        assert running.hub.seats.get(session) is None
        assert text_of(await other.ask("hi")) == "You said: hi"


async def test_a_tick_that_fails_costs_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose clock brings an error that nobody foresaw is closed with 1011, and no other."""
    async with gateway() as running, connected(running) as client, connected(running) as other:
        seat = running.hub.seats.get(client.told.events[0]["session"]["id"])
        assert seat is not None
        monkeypatch.setattr(seat.session.turns, "tick", lambda now: 1 / 0)

        assert (await client.closed())[0] == 1011
        assert text_of(await other.ask("hi")) == "You said: hi"


async def test_a_record_that_cannot_be_written_is_not_delivered() -> None:
    """What msgpack cannot write is told as undelivered, and the queue goes on."""
    failed: list[Exception] = []
    outbox = Outbox(MemoryBus(), lambda record, why: failed.append(why), timeout_s=5.0)

    def told(value: Any) -> Outgoing:
        return Outgoing(REPLIES, Told("s", "", events=({"type": "x", "value": value},)), "s", partition=0)

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(outbox.run())
        outbox.post([told(2**70), told(object()), told(1)])
        await until(lambda: len(failed) == 2 and not len(outbox))
        running.cancel()

    assert [type(why) for why in failed] == [OverflowError, TypeError]


def test_absent_sessions_are_bounded() -> None:
    """Of the sessions whose clients are away no more stay than may be open, and nothing of the others remains."""
    config = settings(max_sessions=3)
    metrics = GatewayMetrics(registry := CollectorRegistry())
    seats = Seats(config, metrics)
    terms = Terms("m", 0, config, metrics, list)
    taken = [seats.add(Session(f"s{n}", terms), 0.0) for n in range(5)]
    connection: Any = object()
    for seat in taken:
        seat.session.open()
        seats.enter(seat, connection)
    taken[0].session.receive(ResponseCreate())

    for n, seat in enumerate(taken):
        seats.leave(seat, connection, float(n))

    assert [seat.session.id for seat in seats] == ["s2", "s3", "s4"]
    assert registry.get_sample_value("penstock_gateway_turns_active") == 0


def partition(running: Running) -> int:
    """Return the partition that the gateway reads."""
    return running.hub.partition()
