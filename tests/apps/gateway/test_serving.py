"""Start, health, pages, trouble with the bus, and the end."""

from __future__ import annotations

import asyncio
import socket
from asyncio import Future
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry

from apps.gateway.asgi import StaticMount, create_app
from apps.gateway.serve import listening, serve
from pipeline.bus import Headers
from pipeline.errors import AddressInUse, BusUnavailable, SettingsError, TopicMissing
from pipeline.memory import MemoryBus
from pipeline.messages import Finished
from pipeline.topics import REPLIES, TURNS
from tests.apps.gateway.harness import DEADLINE_S, Running, connected, echo, gateway, settings, text_of
from tests.apps.gateway.test_admission import refused
from tests.apps.gateway.test_sockets import silent


class Breakable(MemoryBus):
    """A bus that can be broken: `down` names the topics that take nothing, or everything with `*`."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()
        self.stuck = False

    async def publish(
        self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
    ) -> Future[int]:
        """Publish, or fail."""
        if self.down & {topic, "*"}:
            raise BusUnavailable("test", "broken")
        if self.stuck:
            return asyncio.get_running_loop().create_future()
        return await super().publish(topic, value, key=key, headers=headers, partition=partition)

    async def partitions(self, topic: str) -> int:
        """Tell the partitions, or fail."""
        if "partitions" in self.down:
            raise TopicMissing(topic)
        return await super().partitions(topic)

    async def check(self) -> None:
        """Answer, or fail."""
        if self.down:
            raise BusUnavailable("test", "broken")


async def get(running: Running, path: str, **headers: str) -> httpx.Response:
    """Fetch a page."""
    async with httpx.AsyncClient(base_url=running.http, timeout=DEADLINE_S) as client:
        return await client.get(path, headers=headers)


def test_a_taken_port_is_named() -> None:
    """A port that is in use is told by its address and its cure, without a traceback of ours."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port} is in use"):
            listening("127.0.0.1", port)


async def test_health() -> None:
    """Alive is who answers; ready is who serves; the metrics are Prometheus's."""
    async with gateway() as running:
        alive, ready, metrics = [await get(running, path) for path in ("/livez", "/readyz", "/metrics")]

    assert (alive.status_code, alive.text) == (200, "alive\n")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": {}})
    assert "penstock_gateway_connections" in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")


async def test_not_ready_says_why() -> None:
    """What is not ready is named: a broken bus, a stage that could not load, one that does not answer."""

    async def corrupt() -> dict[str, str]:
        return {"llm": "cannot load the model 'demo': the file is cut off"}

    bus = Breakable()
    async with gateway(bus=bus, ready=corrupt) as running:
        bus.down.add("*")
        answer = await get(running, "/readyz")
        bus.down.clear()

    assert answer.status_code == 503
    reasons = answer.json()["reasons"]
    assert "broken" in reasons["bus"]
    assert "cut off" in reasons["llm"]


async def test_models_in_the_field_s_form() -> None:
    """`/v1/models` lists what is served, and an unknown one is a typed 404."""
    async with gateway() as running:
        listed, unknown = await get(running, "/v1/models"), await get(running, "/v1/models/gpt-9")

    assert [model["id"] for model in listed.json()["data"]] == ["penstock-demo", "penstock-tiny"]
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_pages(tmp_path: Path) -> None:
    """Pages come with their type, a tag for caching and the security headers; only the widget is for other sites."""
    (tmp_path / "index.html").write_text("<h1>hi</h1>")
    (tmp_path / "widget.js").write_text("1;")
    (tmp_path.parent / "secret.txt").write_text("no")
    async with gateway(static=(StaticMount(tmp_path),)) as running:
        index, widget = await get(running, "/"), await get(running, "/widget.js")
        again = await get(running, "/widget.js", **{"If-None-Match": widget.headers["etag"]})
        gone = [
            await get(running, path)
            for path in ("/nothing", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt")
        ]
        models = await get(running, "/v1/models")

    assert index.headers["content-type"].startswith("text/html")
    assert widget.headers["content-type"].startswith("text/javascript")
    assert again.status_code == 304
    assert [page.status_code for page in gone] == [404] * 4
    assert "default-src 'self'" in index.headers["content-security-policy"]
    assert index.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in index.headers
    assert widget.headers["access-control-allow-origin"] == "*"
    assert widget.headers["cross-origin-resource-policy"] == "cross-origin"
    assert models.status_code == 200


async def test_a_gateway_starts_without_its_route_and_waits_for_it() -> None:
    """Where the topics are missing the gateway is alive but not ready, and serves as soon as they are there."""
    bus = Breakable()
    async with gateway(bus=bus) as running:
        running.hub.reading.problem = "the topic is not there"
        assert (await refused(running))[1]["code"] == "not_ready"
        assert (await get(running, "/readyz")).status_code == 503
        running.hub.reading.problem = None
        async with connected(running) as client:
            await client.ask("hi")


async def test_a_turn_that_the_log_does_not_take_fails_once() -> None:
    """Where only the turns cannot be published, the client gets one failed response, and the next turn is served."""
    bus = Breakable()
    async with gateway(bus=bus, publish_timeout_s=0.5) as running, connected(running) as client:
        bus.down.add(TURNS.name)
        failed = await client.ask("hi")
        bus.down.clear()
        served = await client.ask("again")

    error = failed["status_details"]["error"]
    assert (failed["status"], error["code"], error["retry_after"]) == ("failed", "log_unavailable", 5.0)
    assert text_of(served) == "You said: again"


@pytest.mark.parametrize("topic", [TURNS.name, REPLIES.name])
async def test_a_log_that_takes_nothing_for_a_moment_is_tried_again(topic: str) -> None:
    """While the producer is replaced the bus refuses at once; a client that talks in that moment is answered."""
    bus = Breakable()
    async with gateway(bus=bus) as running, connected(running) as client:
        bus.down.add(topic)
        asyncio.get_running_loop().call_later(0.6, bus.down.clear)
        assert text_of(await client.ask("hi")) == "You said: hi"
        assert len(running.stages.turns) == 1
        assert running.count("undelivered_total", topic=topic) == 0


@pytest.mark.parametrize("how", ["down", "stuck"])
async def test_a_log_that_takes_nothing_closes_the_connection(how: str) -> None:
    """What cannot be logged cannot be told, so the client is asked to come back; then it is served again."""
    bus = Breakable()
    async with gateway(bus=bus, publish_timeout_s=0.3) as running:
        async with connected(running) as client:
            bus.down |= {REPLIES.name} if how == "down" else set()
            bus.stuck = how == "stuck"
            await client.say("hi")
            assert (await client.closed())[0] == 1013
        bus.down.clear()
        bus.stuck = False
        async with connected(running) as client:
            assert text_of(await client.ask("hi")) == "You said: hi"


async def test_what_is_too_large_for_the_log_is_named() -> None:
    """What the log does not take for its size closes the connection, without a word of a log that cannot be reached."""
    async with gateway(bus=MemoryBus(max_message=20_000)) as running, connected(running) as client:
        await client.say("x" * 30_000)
        assert await client.closed() == (1008, "what was to be told is larger than the log takes; send less at once")


async def test_draining_lets_turns_end() -> None:
    """On shutdown idle sessions are closed at once, new ones refused, and a running turn gets its end first."""
    async with gateway(answer=silent, drain_s=5.0) as running, connected(running) as idle, connected(running) as busy:
        await busy.say("hi")
        await busy.send("response.create")
        turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)

        running.stop.set()
        assert await idle.closed() == (1012, "the server is restarting")
        assert (await refused(running))[1]["code"] == "shutting_down"
        assert (await get(running, "/readyz")).json()["reasons"]["gateway"] == "shutting down"
        for message in echo(turn):
            await running.stages.say(message, running.stages.headers[0]["reply-to"])
        assert text_of((await busy.until("response.done"))["response"]) == "You said: hi"
        assert (await busy.closed())[0] == 1012


async def test_an_end_that_the_log_loses_closes_the_connection() -> None:
    """Where the end of a turn does not come back from the log, the client is asked to come back; it does not wait."""

    class Losing(MemoryBus):
        async def publish(
            self, topic: str, value: bytes, *, key: str, headers: Headers, partition: int | None = None
        ) -> Future[int]:
            """Take a terminal event of a turn, and keep it from everybody."""
            if topic == REPLIES.name and isinstance(REPLIES.decode(value), Finished):
                done = asyncio.get_running_loop().create_future()
                done.set_result(0)
                return done
            return await super().publish(topic, value, key=key, headers=headers, partition=partition)

    short: Any = {"turn_timeout_s": 0.2, "slack_s": 0.1, "publish_timeout_s": 0.2}
    async with gateway(bus=Losing(), answer=silent, **short) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        assert (await client.closed())[0] == 1013


async def test_draining_has_an_end() -> None:
    """A turn that does not end in time is left behind, with a close that clients come back from."""
    async with gateway(answer=silent, drain_s=0.2) as running, connected(running) as client:
        await client.say("hi")
        await client.send("response.create")
        await client.until("response.created")
        running.stop.set()
        assert (await client.closed())[0] == 1012


async def test_unknown_addresses_are_refused_in_words(tmp_path: Path) -> None:
    """Neither a socket nor a request gets lost among the pages: both are told that there is nothing."""
    async with gateway(static=(StaticMount(tmp_path),)) as running:
        status, error = await refused(running, "/v2/realtime")
        plain, unknown = await get(running, "/v1/realtime"), await get(running, "/v1/chat/completions")

    assert (status, error["code"]) == (404, "unknown_url")
    assert (plain.status_code, unknown.status_code) == (426, 404)
    assert unknown.json()["error"]["message"] == "there is nothing at GET /v1/chat/completions"


async def test_a_gateway_whose_reading_fails_ends_loudly() -> None:
    """An error that nobody foresaw ends the gateway, and says what it was; it does not go on half dead."""

    class Faulty(MemoryBus):
        async def partitions(self, topic: str) -> int:
            """Fail as no bus should."""
            raise ZeroDivisionError

    app = create_app(Faulty(), settings(), models=("m",), registry=CollectorRegistry())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(serve(app, settings(), stop=asyncio.Event()), DEADLINE_S)


async def test_a_partition_that_is_not_there_is_named() -> None:
    """A gateway that is told to read a partition of replies that does not exist ends and names the setting."""
    wrong = settings(replies=(99,))
    app = create_app(MemoryBus(), wrong, models=("m",), registry=CollectorRegistry())
    with pytest.raises(SettingsError, match=r"gateway\.replies.*99"):
        await asyncio.wait_for(serve(app, wrong, stop=asyncio.Event()), DEADLINE_S)


def test_an_address_that_is_not_ours_is_named() -> None:
    """An address that this machine does not have is told as the setting that it is."""
    with pytest.raises(SettingsError, match=r"gateway\.host"):
        listening("192.0.2.1", 0)


async def test_no_other_machine_is_let_in_unasked() -> None:
    """Without API keys an address that others reach is refused by the name of the setting that allows it."""
    open_to_all = settings(host="0.0.0.0")
    app = create_app(MemoryBus(), open_to_all, models=("m",), registry=CollectorRegistry())
    with pytest.raises(SettingsError, match=r"gateway\.public"):
        await serve(app, open_to_all, stop=asyncio.Event())

    async with gateway(host="0.0.0.0", public=True) as running:
        assert running.host == "0.0.0.0"


def test_small_frames_leave_at_once() -> None:
    """The kernel holds nothing back: with Nagle's algorithm each first token would wait some 40 ms."""
    with listening("127.0.0.1", 0) as taken, socket.create_connection(taken.getsockname()):
        accepted, _ = taken.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
