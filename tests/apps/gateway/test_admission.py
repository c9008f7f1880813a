"""Who is let in over a real socket, as whom, and to which model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websockets

from pipeline.headers import TRACE
from tests.apps.gateway.harness import Client, Running, connected, gateway, text_of


async def refused(running: Running, path: str = "/v1/realtime", **options: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the error with which a handshake is refused."""
    with pytest.raises(websockets.InvalidStatus) as error:
        async with websockets.connect(running.ws + path, **options):
            pass
    response = error.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]


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
