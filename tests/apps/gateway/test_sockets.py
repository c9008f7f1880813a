"""Real sockets: who is let in, what is read and sent, and how a connection ends."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
import websockets
from websockets.frames import Frame, Opcode

from pipeline.headers import TRACE
from pipeline.messages import Delta, Message, Turn
from tests.apps.gateway.harness import DEADLINE_S, Client, Running, connected, gateway, text_of, until, user


def silent(turn: Turn) -> Iterable[Message]:
    """Answer nothing."""
    return ()


async def refused(running: Running, path: str = "/v1/realtime", **options: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the error with which a handshake is refused."""
    with pytest.raises(websockets.InvalidStatus) as error:
        async with websockets.connect(running.ws + path, **options):
            pass
    response = error.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]


# -- who is let in


async def test_browsers_get_the_subprotocol_they_offer() -> None:
    """`realtime` is echoed where it was offered, and a key among the subprotocols is no obstacle."""
    protocols: Any = ["realtime", "openai-insecure-api-key.abc"]
    async with gateway() as running, connected(running, subprotocols=protocols) as client:
        assert client.socket.subprotocol == "realtime"
        assert text_of(await client.ask("hi")) == "You said: hi"


async def test_no_subprotocol_is_forced_on_anybody() -> None:
    """Who offers none gets none, with a key in the header or without."""
    headers = {"Authorization": "Bearer abc"}
    async with gateway() as running, connected(running, additional_headers=headers) as client:
        assert client.socket.subprotocol is None


async def test_pages_from_elsewhere_are_refused() -> None:
    """The handshake of a page from another origin is refused with 403, and a set one is let in."""
    async with gateway(origins=("https://shop.example",)) as running:
        evil = await refused(running, origin="https://evil.example")
        async with connected(running, origin="https://shop.example") as client:
            await client.ask("hi")
        async with connected(running, origin=running.http) as client:
            await client.ask("hi")

    assert evil[0] == 403
    assert evil[1]["code"] == "origin_not_allowed"


async def test_a_page_whose_name_leads_here_is_refused() -> None:
    """On a loopback address a page is not ours for having the name that was connected to: any name may lead here."""
    async with gateway() as running:
        name = f"evil.example:{running.port}"
        options: Any = {"host": "127.0.0.1", "port": running.port, "origin": f"http://{name}"}
        with pytest.raises(websockets.InvalidStatus) as error:
            async with websockets.connect(f"ws://{name}/v1/realtime", **options):
                pass
        async with connected(running, origin=f"http://{running.host}:{running.port}") as client:
            await client.ask("hi")

    assert error.value.response.status_code == 403


@pytest.mark.parametrize(("trusted", "client"), [((), "127.0.0.1"), (("127.0.0.1",), "9.9.9.9")])
async def test_only_a_trusted_proxy_names_the_client(
    trusted: tuple[str, ...], client: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who a client is, is its address; another one is believed of proxies that are set, and of none by default."""
    caplog.set_level("INFO")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    headers = {"X-Forwarded-For": "9.9.9.9"}
    async with gateway(trusted_proxies=trusted) as running, connected(running, additional_headers=headers):
        pass

    assert f"opened by {client} over" in caplog.text


async def test_a_client_that_comes_too_often_is_told_when_to_come_back() -> None:
    """A handshake above the rate is refused with 429 and whole seconds, of which there is one at least."""
    async with gateway(requests_per_s=10.0, requests_burst=1) as running, connected(running):
        with pytest.raises(websockets.InvalidStatus) as error:
            async with websockets.connect(f"{running.ws}/v1/realtime"):
                pass

    assert error.value.response.status_code == 429
    assert error.value.response.headers["Retry-After"] == "1"


async def test_a_refusal_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """A handshake that is refused in words leaves no error in the log."""
    async with gateway() as running:
        await refused(running, origin="https://evil.example")

    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_sessions_are_bounded() -> None:
    """One session too many is refused with 503 and a hint, and let in when another has gone."""
    async with gateway(max_sessions=1) as running:
        async with connected(running):
            status, error = await refused(running)
        assert (status, error["code"]) == (503, "too_many_sessions")
        async with connected(running) as client:
            await client.ask("hi")
        assert running.count("refused_total", why="too_many_sessions") == 1


async def test_an_alias_names_a_model() -> None:
    """A name that is configured as an alias leads to its model; `default` and none at all to whichever is served."""
    async with gateway(model_aliases={"gpt-realtime": "penstock-tiny"}) as running:
        for query in ("?model=gpt-realtime", "?model=default", "", "?model=penstock-tiny"):
            async with connected(running, query) as client:
                await client.ask("hi")

    served = [turn.model for turn in running.stages.turns]
    assert served == ["penstock-tiny", None, None, "penstock-tiny"]


async def test_transcription_sessions_are_refused_in_words() -> None:
    """`?intent=transcription` is not served yet, and the client is told so."""
    async with gateway() as running, websockets.connect(f"{running.ws}/v1/realtime?intent=transcription") as socket:
        client = Client(socket)
        assert (await client.next())["error"]["code"] == "audio_not_supported"
        assert (await client.closed())[0] == 1008


async def test_the_clients_trace_goes_on() -> None:
    """A valid `traceparent` of the handshake travels with each turn; an invalid one is replaced."""
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with gateway() as running:
        for header in (given, "00-zz-1-01"):
            async with connected(running, additional_headers={"traceparent": header}) as client:
                await client.ask("hi")

    traces = [headers[TRACE] for headers in running.stages.headers]
    assert traces[0] == given
    assert len(traces[1]) == len(given)
    assert "zz" not in traces[1]


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
    assert re.fullmatch(r"session sess_\w+ closed after [\d.]+ s with 1000 ?", closed)
    assert "secret" not in caplog.text
