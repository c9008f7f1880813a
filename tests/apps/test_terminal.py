"""The chat in a terminal, against the real pipe and against a gateway that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from apps.chat.line import Line, NobodyListens, Refused
from apps.chat.terminal import talk
from apps.local import piped
from apps.parts import loaded
from apps.settings import ModelSettings, Settings
from pipeline.errors import SettingsError
from pipeline.memory import MemoryBus

DEADLINE_S = 30

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def gateway(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """A server that does what `handler` says; gives its address."""
    async with asyncio.timeout(DEADLINE_S), serve(handler, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_address_that_is_none_is_named() -> None:
    """A URL that cannot be one ends the start with the setting's name."""
    with pytest.raises(SettingsError, match=r"chat\.url.*'notaurl' is not an address"):
        await talk(Line("notaurl"), once="Hello")


async def tell(socket: ServerConnection, kind: str, **fields: Any) -> None:
    """Send an event."""
    await socket.send(json.dumps({"type": kind, "event_id": f"event_{kind}", **fields}))


async def asked(socket: ServerConnection) -> str:
    """Read up to the wish for an answer, and return what was said."""
    said = ""
    async for frame in socket:
        event = json.loads(frame)
        if event["type"] == "conversation.item.create":
            said = event["item"]["content"][0]["text"]
        if event["type"] == "response.create":
            break
    return said


async def answer(socket: ServerConnection, *pieces: str, status: str = "completed", **details: Any) -> None:
    """Answer in pieces."""
    for piece in pieces:
        await tell(socket, "response.output_text.delta", delta=piece)
    await tell(socket, "response.done", response={"status": status, "status_details": details or None})


def path_of(socket: ServerConnection) -> str:
    """Return the path and query with which the client came."""
    assert socket.request is not None
    return socket.request.path


async def test_the_real_pipe_answers(small_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the model says is written as it comes, and nothing else."""
    settings = Settings(model=ModelSettings(name=str(small_model), threads=1))
    async with (
        asyncio.timeout(DEADLINE_S),
        MemoryBus() as bus,
        loaded(settings.model) as parts,
        piped(bus, parts, settings) as url,
    ):
        await talk(Line(url), once="How much is a tent?")
    assert capsys.readouterr().out.strip()


async def test_an_answer_is_written_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    """Pieces of an answer are joined, brackets and all, and end with a line end."""

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        await answer(socket, "[bold]", f" {await asked(socket)}", "!")

    async with gateway(handler) as url:
        assert await talk(Line(url), once="Hello")
    assert capsys.readouterr().out == "[bold] Hello!\n"


async def test_each_line_of_a_pipe_is_a_turn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a terminal every line is said, and the answers alone are written."""
    (tmp_path / "lines").write_text("one\n\ntwo\n")

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        for _ in range(2):
            await answer(socket, (await asked(socket)).upper())

    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        async with gateway(handler) as url:
            assert await talk(Line(url))
    assert capsys.readouterr().out == "ONE\nTWO\n"


async def test_a_failed_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure is written to standard error, and the outcome is no success."""

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        await asked(socket)
        await answer(socket, status="failed", error={"message": "the model has caught fire"})

    async with gateway(handler) as url:
        assert not await talk(Line(url), once="Hello")
    assert "the model has caught fire" in capsys.readouterr().err


async def test_a_lost_connection_is_renewed_and_the_answer_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """After a loss in mid-answer the client comes back with its session and the last event, and the rest follows."""
    paths: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        paths.append(path_of(socket))
        await tell(socket, "session.created", session={"id": "s1"})
        if len(paths) == 1:
            await asked(socket)
            await tell(socket, "response.output_text.delta", delta="Half")
            socket.transport.abort()
        else:
            await answer(socket, " and half")
            await socket.wait_closed()

    async with gateway(handler) as url:
        assert await talk(Line(url), once="Hello")
    assert capsys.readouterr().out == "Half and half\n"
    assert paths == ["/v1/realtime", "/v1/realtime?resume=s1&last_event_id=event_response.output_text.delta"]


async def test_a_lost_session_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the gateway comes back without the session, the half answer is not taken for a whole one."""
    sessions = iter(("s1", "s2"))

    async def handler(socket: ServerConnection) -> None:
        name = next(sessions)
        await tell(socket, "session.created", session={"id": name})
        if name == "s1":
            await asked(socket)
            socket.transport.abort()
        await socket.wait_closed()

    async with gateway(handler) as url:
        assert not await talk(Line(url), once="Hello")
    assert "please say it again" in capsys.readouterr().err


async def test_a_session_that_was_left_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """`--session` is asked for, and where it is gone that is told."""
    paths: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        paths.append(path_of(socket))
        await tell(socket, "session.created", session={"id": "new"})
        await asked(socket)
        await answer(socket, "Hello")

    async with gateway(handler) as url:
        assert await talk(Line(url, session="old"), once="Hello")
    assert "resume=old" in paths[0]
    assert "that session is gone" in capsys.readouterr().err


async def test_nobody_there(unused_port: int) -> None:
    """Where nobody listens the error names the address and the cure."""
    with pytest.raises(NobodyListens, match=f"{unused_port}.*penstock up"):
        await talk(Line(f"ws://127.0.0.1:{unused_port}"), once="Hello")


async def test_a_gateway_that_does_not_come_back_is_given_up() -> None:
    """A lost gateway is waited for, and not for ever."""

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        await asked(socket)
        server.close(close_connections=False)
        socket.transport.abort()

    async with asyncio.timeout(DEADLINE_S), serve(handler, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(NobodyListens, match=r"not back within 0\.5 s"):
            await talk(Line(url, patience_s=0.5), once="Hello")


async def test_a_refusal_is_told_in_the_gateways_words() -> None:
    """What a gateway says when it turns a client away, before or after the handshake, is what the user reads."""

    def deny(connection: ServerConnection, _: Any) -> Any:
        return connection.respond(HTTPStatus.FORBIDDEN, json.dumps({"error": {"message": "no entry"}}))

    async def complain(socket: ServerConnection) -> None:
        await tell(socket, "error", error={"message": "no such model"})

    async with gateway(complain, process_request=deny) as url:
        with pytest.raises(Refused, match="no entry"):
            await talk(Line(url), once="Hello")
    async with gateway(complain) as url:
        with pytest.raises(Refused, match="no such model"):
            await talk(Line(url), once="Hello")


async def test_the_address_may_be_written_in_several_ways() -> None:
    """A web address or a whole endpoint will do, too; the key and the model go along."""
    seen: list[tuple[str, str | None]] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append((socket.request.path, socket.request.headers.get("Authorization")))
        await tell(socket, "session.created", session={"id": "s1"})
        await asked(socket)
        await answer(socket, "Hi")

    async with gateway(handler) as url:
        await talk(Line(url.replace("ws:", "http:") + "/"), once="Hello")
        await talk(Line(f"{url}/other/realtime", key="k", model="m"), once="Hello")
    assert seen == [("/v1/realtime", None), ("/other/realtime?model=m", "Bearer k")]
