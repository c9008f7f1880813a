"""Coming back to a session: over real sockets, to the same gateway and to another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import websockets
from openai import AsyncOpenAI

from apps.gateway.arrival import Arrival
from apps.gateway.session import Session
from pipeline.memory import MemoryBus
from pipeline.messages import Claimed, Message, Turn
from pipeline.secret import Secret
from tests.apps.gateway.checks import Told
from tests.apps.gateway.harness import (
    DEADLINE_S,
    Client,
    Running,
    connected,
    gateway,
    spoken,
    text_of,
    until,
    user,
)
from tests.apps.gateway.test_chat import chat
from tests.apps.gateway.test_sockets import silent

SECRET = Secret("of this deployment, and of no other one")


@asynccontextmanager
async def pair(**changed: Any) -> AsyncGenerator[tuple[Running, Running], None]:
    """Run two gateways of one deployment; the first one's stages answer for both, as they are told."""
    bus = MemoryBus(partitions=2)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            gateway(bus=bus, **{"answer": silent, "secret": SECRET, "replies": (0,), **changed})
        )
        second = await stack.enter_async_context(
            gateway(bus=bus, answer=silent, **{"secret": SECRET, "replies": (1,), **changed})
        )
        yield first, second


@asynccontextmanager
async def back(running: Running, session: str, event_id: str, told: Told | None = None) -> AsyncGenerator[Client, None]:
    """Come back to a session after an event; what comes is checked as if there had been no break after `told`."""
    query = f"?resume={session}&last_event_id={event_id}"
    async with websockets.connect(f"{running.ws}/v1/realtime{query}") as socket:
        client = Client(socket)
        client.told = told or client.told
        yield client


async def asked(client: Client, running: Running, text: str = "hi") -> tuple[Turn, str]:
    """Ask; returns the turn and where to answer it."""
    await client.say(text, id="u1")
    await client.send("response.create", event_id="ask")
    await client.until("rate_limits.updated")
    turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
    return turn, running.stages.headers[-1]["reply-to"]


def session_of(client: Client) -> str:
    """Return the id of a client's session."""
    return str(client.told.events[0]["session"]["id"])


async def say_all(running: Running, messages: list[Message], reply_to: str) -> None:
    """Let the stages say something."""
    for message in messages:
        await running.stages.say(message, reply_to)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_the_rest_of_an_answer(elsewhere: bool) -> None:
    """Who was cut off in mid-answer gets each missing token once, one end, and goes on with its conversation."""
    async with pair() as (first, second):
        async with connected(first) as client:
            turn, reply_to = await asked(client, first)
            *pieces, end = spoken(turn, "one two three four")
            await say_all(first, pieces[:2], reply_to)
            delta = await client.until("response.output_text.delta")
            name = session_of(client)
        await say_all(first, pieces[2:3], reply_to)
        there = second if elsewhere else first
        async with back(there, name, delta["event_id"], client.told) as client:
            missed = [await client.next() for _ in range(3)]
            assert [event.get("delta") for event in missed] == [" two", " three", None]
            assert missed[-1]["type"] == "session.updated"
            assert missed[-1]["resumed"] is True
            await say_all(first, [pieces[3], end], reply_to)
            assert text_of((await client.until("response.done"))["response"]) == "one two three four"
            assert client.told.types().count("response.done") == 1
            first.stages.answer = lambda turn: spoken(turn, "five")
            assert text_of(await client.ask("more")) == "five"

    assert [u.text for u in first.stages.turns[-1].conversation] == ["hi", "one two three four", "more"]
    assert len(first.hub.seats) + len(second.hub.seats) <= 1


async def test_the_older_socket_is_let_go() -> None:
    """Where the same client is seen twice, the newer one has the session; nothing of it is ended."""
    async with pair() as (first, second), connected(first) as old:
        turn, reply_to = await asked(old, first)
        async with back(second, session_of(old), old.told.events[-1]["event_id"], old.told) as new:
            await new.until("session.updated")
            assert (await old.closed())[0] == 4409
            assert len(first.hub.seats) == 0
            await say_all(first, list(spoken(turn, "yes")), reply_to)
            assert text_of((await new.until("response.done"))["response"]) == "yes"
        assert first.stages.cancels.empty()


async def test_what_was_sent_before_is_not_done_again() -> None:
    """A client that does not know whether its events arrived sends them again under their ids: they are done once."""
    async with pair() as (first, second):
        async with connected(first) as client:
            turn, reply_to = await asked(client, first)
            name, event_id = session_of(client), client.told.events[0]["event_id"]
        async with back(second, name, event_id) as client:
            await client.send("response.create", event_id="ask")
            await say_all(first, list(spoken(turn, "yes")), reply_to)
            await client.until("response.done")
            await client.send("response.create", event_id="ask")
            await client.send("conversation.item.retrieve", item_id="u1")
            assert (await client.next())["type"] == "conversation.item.retrieved"

    assert len(first.stages.turns) == 1
    assert second.count("repeated_total") == 2


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("resume={session}&last_event_id=event_forged", "invalid_cursor"),
        ("resume={session}", "invalid_cursor"),
        ("resume=sess_other&last_event_id={event}", "invalid_cursor"),
        ("resume=chat.s1&last_event_id={event}", "invalid_cursor"),
    ],
)
async def test_who_cannot_come_back_is_told(query: str, reason: str) -> None:
    """A cursor that is none is refused in words that say what to do, with a close code of its own; nothing is lost."""
    async with pair() as (first, _), connected(first) as client:
        session, event = session_of(client), client.told.events[-1]["event_id"]
        url = f"{first.ws}/v1/realtime?{query.format(session=session, event=event)}"
        async with websockets.connect(url) as socket:
            stranger = Client(socket)
            error = (await stranger.until("error"))["error"]
            assert (await stranger.closed())[0] == 4410
        first.stages.answer = lambda turn: spoken(turn, "yes")
        assert text_of(await client.ask("still here?")) == "yes"

    assert (error["code"], error["reason"], error["param"]) == ("resume_failed", reason, "last_event_id")


async def test_another_secret_is_another_deployment() -> None:
    """Without a secret that both have, a client can come back to its own gateway alone."""
    bus = MemoryBus()
    async with gateway(bus=bus) as first, gateway(bus=bus) as second, connected(first) as client:
        name, event_id = session_of(client), client.told.events[-1]["event_id"]
        async with back(second, name, event_id) as stranger:
            assert (await stranger.until("error"))["error"]["reason"] == "invalid_cursor"
        async with back(first, name, event_id) as same:
            await same.until("session.updated")


async def test_an_old_cursor_is_refused() -> None:
    """Where the log has forgotten what the client has missed, it is told so, and gets no part of it."""
    bus = MemoryBus(keep=50)
    async with gateway(bus=bus, answer=silent) as running:
        async with connected(running) as client:
            turn, reply_to = await asked(client, running)
            name, event_id = session_of(client), client.told.events[-1]["event_id"]
        await say_all(running, list(spoken(turn, "x " * 200)), reply_to)
        async with back(running, name, event_id) as client:
            assert (await client.until("error"))["error"]["reason"] == "gone"
            assert (await client.closed())[0] == 4410


@pytest.mark.slow
async def test_a_quiet_session_in_a_busy_log() -> None:
    """A session of which nothing was heard for long is found again without reading all that others said since."""
    bus = MemoryBus(partitions=1, keep=20_000)
    async with gateway(bus=bus, patience_s=100) as running, connected(running) as quiet:
        async with connected(running) as busy:
            for _ in range(12):
                await busy.ask("word " * 1000)
        await until(lambda: not running.hub.outbox)
        name, event_id = session_of(quiet), quiet.told.events[-1]["event_id"]
        first = quiet.told.events[0]
        async with back(running, name, event_id) as again:
            resumed = await again.until("session.updated")
            assert resumed["session"] == first["session"]
            assert running.count("resume_seconds_count") == 1


async def test_two_come_back_at_once() -> None:
    """Of two sockets that come back to the same session, one has it in the end, and the other is told."""
    async with pair() as (first, second):
        async with connected(first) as client:
            turn, reply_to = await asked(client, first)
            name, event_id = session_of(client), client.told.events[-1]["event_id"]
        async with (
            back(first, name, event_id) as one,
            back(second, name, event_id) as two,
            back(second, name, event_id, client.told) as three,
        ):
            await three.until("session.updated")
            codes = {(await other.closed())[0] for other in (one, two)}
            await say_all(first, list(spoken(turn, "yes")), reply_to)
            assert text_of((await three.until("response.done"))["response"]) == "yes"

    assert codes == {4409}


async def test_the_first_of_two_at_one_gateway_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is overtaken while its past is read leaves the session to the one that came later."""
    async with pair() as (first, second):
        async with connected(first) as client:
            name, event_id = session_of(client), client.told.events[-1]["event_id"]
        rebuild, go = second.hub._rebuild, asyncio.Event()

        async def slowly(arrival: Arrival) -> None:
            await rebuild(arrival)
            await go.wait()

        monkeypatch.setattr(second.hub, "_rebuild", slowly)
        async with back(second, name, event_id) as slow:
            await until(lambda: bool(second.hub.seats.arrivals.expected))
            monkeypatch.setattr(second.hub, "_rebuild", rebuild)
            async with back(second, name, event_id) as quick:
                await quick.until("session.updated")
                go.set()
                assert (await slow.closed())[0] == 4409
                await quick.say("still here")
                await quick.until("conversation.item.added")


async def test_who_is_overtaken_on_its_way_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who loses the session by the very next record after it was given it has a socket that is closed, and no ghost."""
    async with pair() as (first, second):
        async with connected(first) as client:
            name, event_id = session_of(client), client.told.events[-1]["event_id"]

        async def overtaken(session: Session) -> None:
            for claim in (*(out.message for out in session.outgoing()), Claimed(name, "", "another")):
                await second.stages.say(claim, session.terms.partition)

        monkeypatch.setattr(second.hub, "pump", overtaken)
        async with back(second, name, event_id) as late:
            assert (await late.closed())[0] == 4409
        assert not second.hub.seats.connected


async def test_the_openai_sdk_comes_back() -> None:
    """The unmodified SDK reconnects with what `on_reconnecting` gives it, and its loop over events just goes on."""
    seen: list[Mapping[str, Any]] = []

    def on_reconnecting(_: Any) -> Any:
        return {"extra_query": {"resume": seen[0]["session"]["id"], "last_event_id": seen[-1]["event_id"]}}

    async with pair() as (first, _):
        sdk = AsyncOpenAI(base_url=f"{first.http}/v1", api_key="none")
        async with (
            sdk,
            sdk.realtime.connect(
                model="penstock-demo", on_reconnecting=on_reconnecting, initial_delay=0.05
            ) as connection,
            asyncio.timeout(DEADLINE_S),
        ):
            await connection.conversation.item.create(item=user("hi"))  # type: ignore[arg-type]
            await connection.response.create()
            turn: Turn | None = None
            rest: list[Message] = []
            async for event in connection:
                seen.append(event.to_dict(mode="json"))
                if event.type == "response.created":
                    turn = await first.stages.asked.get()
                    *pieces, last, end = spoken(turn, "one two three")
                    rest = [last, end]
                    await say_all(first, pieces, first.stages.headers[-1]["reply-to"])
                if event.type == "response.output_text.delta" and event.delta == " two":
                    connection._connection.transport.abort()
                    await say_all(first, rest, first.stages.headers[-1]["reply-to"])
                if event.type == "response.done":
                    break

    texts = [event["delta"] for event in seen if event["type"] == "response.output_text.delta"]
    assert texts == ["one", " two", " three"]
    assert seen[-1]["response"]["status"] == "completed"


# -- chats


async def numbered(socket: websockets.ClientConnection, count: int) -> list[tuple[str, str]]:
    """Return the next frames, each cut into its id and the rest."""
    async with asyncio.timeout(DEADLINE_S):
        return [(at, text) for at, _, text in [str(await socket.recv()).partition(" ") for _ in range(count)]]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_chat_comes_back_to_where_it_was(elsewhere: bool) -> None:
    """A chat that says what it has got last gets what comes after that, at any gateway, and nothing twice."""
    async with pair() as (first, second):
        async with chat(first, query="?last=") as socket:
            await socket.send("hi")
            turn = await asyncio.wait_for(first.stages.asked.get(), DEADLINE_S)
            reply_to = first.stages.headers[-1]["reply-to"]
            *pieces, end = spoken(turn, "one two three")
            await say_all(first, pieces[:2], reply_to)
            got = await numbered(socket, 1)
        await say_all(first, [*pieces[2:], end], reply_to)
        async with chat(second if elsewhere else first, query=f"?last={got[-1][0]}") as socket:
            got += await numbered(socket, 3)
            await socket.send("more")
            turn = await asyncio.wait_for(first.stages.asked.get(), DEADLINE_S)
            await say_all(first, list(spoken(turn, "four")), reply_to)
            got += await numbered(socket, 2)

    assert [text for _, text in got] == ["one", " two", " three", "<END>", "four", "<END>"]
    assert [u.text for u in turn.conversation] == ["hi", "one two three", "more"]


async def test_a_line_that_waits_is_answered_at_the_other_gateway() -> None:
    """Lines that wait for the answer before them move with their client, each is answered once."""
    async with pair() as (first, second):
        async with chat(first, query="?last=") as socket:
            for line in ("one", "two", "three"):
                await socket.send(line)
            turn = await asyncio.wait_for(first.stages.asked.get(), DEADLINE_S)
            reply_to = first.stages.headers[-1]["reply-to"]
            await say_all(first, list(spoken(turn, "1"))[:1], reply_to)
            got = await numbered(socket, 1)
            seat = first.hub.seats.get("chat.s1")
            assert seat is not None
            await until(lambda: len(seat.session.account.lines) == 2)
        first.stages.answer = lambda turn: spoken(turn, f"to {turn.conversation[-1].text}")
        async with chat(second, query=f"?last={got[-1][0]}") as socket:
            await say_all(first, list(spoken(turn, "1"))[1:], reply_to)
            got += await numbered(socket, 7)
        async with chat(first, query=f"?last={got[-1][0]}") as socket:
            await socket.send("four")
            got += await numbered(socket, 3)

    answers = [["1", "<END>"], *(["to", f" {line}", "<END>"] for line in ("two", "three", "four"))]
    assert [text for _, text in got] == [text for answer in answers for text in answer]
    assert len(first.stages.turns) == 4


@pytest.mark.parametrize("remembered", [False, True])
async def test_a_refused_line_that_waits_is_told_at_the_other_gateway(remembered: bool) -> None:
    """A line that is refused has its place among those that wait, also where its client goes elsewhere."""
    async with pair() as (first, second):
        async with chat(first, query="?last=") as socket:
            for line in ("one", b"no text", "three"):
                await socket.send(line)
            turn = await asyncio.wait_for(first.stages.asked.get(), DEADLINE_S)
            reply_to = first.stages.headers[-1]["reply-to"]
            await say_all(first, list(spoken(turn, "1"))[:1], reply_to)
            got = await numbered(socket, 1)
            seat = first.hub.seats.get("chat.s1")
            assert seat is not None
            await until(lambda: "three" in seat.session.account.lines)
            if remembered:
                seat.session.remember(first.hub.reading.position(0) - 1, 0)
                await first.hub.pump(seat.session)
                await until(lambda: seat.session.account.since == 0)
        first.stages.answer = lambda turn: spoken(turn, f"to {turn.conversation[-1].text}")
        async with chat(second, query=f"?last={got[-1][0]}") as socket:
            await say_all(first, list(spoken(turn, "1"))[1:], reply_to)
            got += await numbered(socket, 6)

    error = "<ERROR invalid_frame: a line is sent as a text frame; this one is binary>"
    assert [text for _, text in got] == ["1", "<END>", error, "<END>", "to", " three", "<END>"]


async def test_an_older_life_of_a_name_takes_the_place_of_a_newer_one() -> None:
    """Who is in a newer life of a chat's name, in another partition, is told that another has it now, and no ghost."""
    async with pair() as (first, second):
        async with chat(first, query="?last=") as socket:
            await socket.send("  ")
            got = await numbered(socket, 2)
        async with chat(second) as newer:
            await newer.send("hi")
            turn = await asyncio.wait_for(first.stages.asked.get(), DEADLINE_S)
            async with chat(second, query=f"?last={got[-1][0]}") as older:
                await asyncio.wait_for(newer.wait_closed(), DEADLINE_S)
                cancel = await asyncio.wait_for(first.stages.cancels.get(), DEADLINE_S)
                first.stages.answer = lambda turn: spoken(turn, "yes")
                await older.send("and I?")
                assert [text for _, text in await numbered(older, 2)] == ["yes", "<END>"]

    assert newer.close_code == 4409
    assert (cancel.turn, len(second.hub.seats)) == (turn.turn, 1)
    assert first.count("turns_active") + second.count("turns_active") == 0


async def test_an_event_of_several_frames_can_be_cut_in_between() -> None:
    """An error and its end are two frames of one event: who got the first comes back and gets the second alone."""
    async with pair() as (first, second):
        async with chat(first, query="?last=") as socket:
            await socket.send("  ")
            got = await numbered(socket, 2)
        async with chat(second, query=f"?last={got[0][0]}") as socket:
            got += await numbered(socket, 1)

    assert got[0][1].startswith("<ERROR empty_text: ")
    assert got[1] == got[2]
    assert got[1][1] == "<END>"


async def test_a_chat_that_cannot_come_back_is_told() -> None:
    """A cursor that is none is refused in words and a close code of its own; the frames tell to begin anew."""
    async with pair() as (first, _), chat(first, query="?last=event_forged") as socket:
        got = await numbered(socket, 2)
        await asyncio.wait_for(socket.wait_closed(), DEADLINE_S)

    assert got[0][0] == ""
    assert got[0][1].startswith("<ERROR resume_failed: ")
    assert isinstance(socket, websockets.ClientConnection)
    assert socket.close_code == 4410


# -- a gateway that stops


async def test_who_can_move_is_moved() -> None:
    """A gateway that stops is first not ready, then closes with 1012, fails no turn; its clients go on elsewhere."""
    async with pair(drain_notice_s=0.5) as (first, second):
        async with connected(first) as client:
            turn, reply_to = await asked(client, first)
            first.stop.set()
            await until(lambda: first.hub.seats.draining)
            await client.say("said while it stops")
            await client.until("conversation.item.added")
            assert (await client.closed())[0] == 1012
            name, event_id = session_of(client), client.told.events[-1]["event_id"]
        async with back(second, name, event_id, client.told) as client:
            await client.until("session.updated")
            await say_all(second, list(spoken(turn, "yes")), reply_to)
            assert text_of((await client.until("response.done"))["response"]) == "yes"
        assert second.stages.cancels.empty()


async def test_who_was_idle_comes_back_at_once() -> None:
    """Who comes back after an idle close is told why that was, and stays."""
    bus = MemoryBus(partitions=2)
    async with (
        gateway(bus=bus, answer=lambda turn: spoken(turn, "yes"), secret=SECRET, replies=(0,)) as patient,
        gateway(bus=bus, answer=silent, secret=SECRET, replies=(1,), idle_timeout_s=0.2) as hasty,
    ):
        async with connected(hasty) as client:
            name, event_id = session_of(client), client.told.events[-1]["event_id"]
            await asyncio.wait_for(client.socket.wait_closed(), DEADLINE_S)
        async with back(patient, name, event_id) as client:
            assert (await client.until("error"))["error"]["code"] == "session_expired"
            await client.until("session.updated")
            assert text_of(await client.ask("still here?")) == "yes"


async def test_complaints_leave_a_place_to_come_back_to() -> None:
    """What is said directly has an id, too, and whoever comes back with that gets what came after."""
    async with pair() as (first, second):
        async with connected(first) as client:
            for _ in range(2):
                await client.socket.send("no json")
                await client.until("error")
            name, event_id = session_of(client), client.told.events[-1]["event_id"]
        async with back(second, name, event_id) as client:
            assert (await client.next())["type"] == "session.updated"
