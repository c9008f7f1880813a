"""Real sockets: what is read and sent, and how a connection ends."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from pipeline.messages import Delta, Message, Turn
from tests.apps.gateway.harness import DEADLINE_S, connected, gateway, text_of, until, user


def silent(turn: Turn) -> Iterable[Message]:
    """Answer nothing."""
    return ()


# -- what is read


async def test_wrong_frames_leave_the_session_alive() -> None:
    """Binary, no JSON and unknown events are answered with errors on the wire, and the next turn is served."""
    async with gateway() as running, connected(running) as client:
        codes = []
        for frame in (b"\x00", "nonsense", '{"type": "nonsense", "event_id": "e1"}'):
            await client.socket.send(frame)
            codes.append((await client.until("error"))["error"]["code"])
        assert text_of(await client.ask("hi")) == "You said: hi"

    assert codes == ["invalid_frame", "invalid_json", "unknown_event"]


async def test_a_megabyte_of_text_gets_an_error() -> None:
    """A megabyte in one item is refused by name; the connection stays."""
    async with gateway() as running, connected(running) as client:
        await client.say("x" * 1_000_000)
        assert (await client.until("error"))["error"]["code"] == "string_above_max_length"
        await client.send("conversation.item.create", event_id="big", item=user("€" * 1_000_000))
        error = (await client.until("error"))["error"]
        assert (error["code"], error["event_id"]) == ("message_too_large", "big")
        assert text_of(await client.ask("hi")) == "You said: hi"


async def test_a_huge_frame_closes_the_connection() -> None:
    """A frame above the limit is not read: the connection is closed with 1009, and others are served."""
    async with gateway(max_frame_bytes=100_000) as running, connected(running) as other:
        async with connected(running) as client:
            await client.socket.send("x" * 200_000)
            assert (await client.closed())[0] == 1009
        assert text_of(await other.ask("hi")) == "You said: hi"


async def test_invalid_utf8_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Text that is no UTF-8 closes the connection with 1007, as the WebSocket standard demands; others are served."""
    async with gateway() as running, connected(running) as other:
        async with connected(running) as client:
            client.socket.protocol.send_frame(Frame(Opcode.TEXT, b"\xff\xfe"))
            client.socket.transport.writelines(client.socket.protocol.data_to_send())
            assert (await client.closed())[0] == 1007
        assert text_of(await other.ask("hi")) == "You said: hi"


async def test_a_flood_is_refused_event_by_event() -> None:
    """Events above the rate are refused with a hint and their ids, and the connection stays."""
    async with gateway(requests_per_s=20.0, requests_burst=3) as running, connected(running) as client:
        for number in range(4):
            await client.send("response.cancel", event_id=f"e{number}")
        await client.send("nonsense", event_id="e4")
        errors = [(await client.until("error"))["error"] for _ in range(5)]
        limited = [error for error in errors if error["code"] == "rate_limit_exceeded"]
        assert limited
        assert limited[-1]["event_id"] == "e4"
        await asyncio.sleep(limited[-1]["retry_after"] + 0.15)
        assert text_of(await client.ask("hi")) == "You said: hi"


# -- what is sent


async def test_a_client_that_does_not_read_is_closed_and_costs_little() -> None:
    """What waits for a slow client is bounded: it is closed, while others are served."""

    def flood(turn: Turn) -> Iterable[Message]:
        if turn.conversation[-1].text != "flood":
            return [Delta(turn.session, turn.turn, at=0, text="hi", index=1)]
        piece = "x" * 10_000
        return [Delta(turn.session, turn.turn, at=n * len(piece), text=piece, index=n) for n in range(2000)]

    limits: Any = {"send_queue_bytes": 200_000, "send_timeout_s": 0.5}
    lazy: Any = {"max_queue": 1, "close_timeout": 0.1}
    async with gateway(answer=flood, **limits) as up, connected(up) as other, connected(up, **lazy) as slow:
        await slow.say("flood")
        await slow.send("response.create")
        await other.say("me too")
        await other.send("response.create")
        assert (await other.until("response.output_text.delta"))["delta"] == "hi"
        await until(lambda: up.hub.seats.connected == 1)

    assert up.count("send_queue_overflows_total") == 1


# -- how it ends


async def test_an_idle_connection_is_told_and_closed() -> None:
    """Nothing heard for too long: an error that says so, then a close with 1001."""
    async with gateway(idle_timeout_s=0.2) as running, connected(running) as client:
        assert (await client.until("error"))["error"]["code"] == "session_expired"
        assert await client.closed() == (1001, "session_expired")


async def test_an_answer_keeps_a_connection_from_being_idle() -> None:
    """While a turn is under way nothing has to be heard, and the wait begins anew with its end."""
    times: Any = {"idle_timeout_s": 0.6, "turn_timeout_s": 1.2, "slack_s": 0.1}
    async with gateway(answer=silent, **times) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        await client.until("response.done")
        done = time.monotonic()
        assert (await client.until("error"))["error"]["code"] == "session_expired"
        assert time.monotonic() - done > 0.3


async def test_a_session_has_a_longest_time() -> None:
    """However busy it is, a connection ends at its longest time."""
    async with gateway(max_session_s=0.3, answer=silent) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        assert (await client.until("error"))["error"]["code"] == "session_expired"
        assert await client.closed() == (1001, "session_expired")


async def test_a_turn_outlives_its_client_for_the_grace_period() -> None:
    """A disconnect is no cancel; after the grace period the turn is cancelled and the session forgotten."""
    async with gateway(answer=silent, grace_s=0.3, slack_s=0.2) as running:
        async with connected(running) as client:
            await client.say("hi")
            await client.send("response.create")
            turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
        assert running.stages.cancels.empty()
        cancel = await asyncio.wait_for(running.stages.cancels.get(), DEADLINE_S)
        await until(lambda: not len(running.hub.seats))
        async with asyncio.timeout(DEADLINE_S):
            while len(running.hub.seats):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert cancel.turn == turn.turn
    assert running.count("turns_total", status="cancelled") == 1


async def test_a_cancel_reaches_the_stages() -> None:
    """`response.cancel` stands on `control`, and the response ends even where nobody answers it."""
    async with gateway(answer=silent, slack_s=0.2) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        await client.until("response.created")
        await client.send("response.cancel")
        done = await client.until("response.done")

    assert done["response"]["status"] == "cancelled"
    assert running.stages.cancels.get_nowait().turn == done["response"]["id"]


async def test_what_happens_is_counted() -> None:
    """Turns, first tokens, events and errors are counted by kind."""
    async with gateway() as running, connected(running) as client:
        await client.ask("hi")
        await client.send("nonsense")
        await client.until("error")
        assert running.count("connections", protocol="realtime") == 1

    assert running.count("turns_total", status="completed") == 1
    assert running.count("first_token_seconds_count") == 1
    assert running.count("errors_total", code="unknown_event") == 1
    assert running.count("events_in_total", type="response.create") == 1
    assert running.count("events_out_total", type="response.done") == 1
    assert running.count("turns_active") == 0


async def test_the_log_holds_no_words_of_users(caplog: pytest.LogCaptureFixture) -> None:
    """Opening and closing are logged with the session's id, and nothing that was said."""
    caplog.set_level("INFO")
    async with gateway() as running, connected(running) as client:
        await client.ask("my secret")

    opened, closed = [record.getMessage() for record in caplog.records if record.name.startswith("apps.gateway")]
    assert re.fullmatch(r"session sess_\w+ opened by 127.0.0.1 over realtime", opened)
    assert re.fullmatch(r"session sess_\w+ closed after [\d.]+ s with 1000 by its client", closed)
    assert "secret" not in caplog.text
