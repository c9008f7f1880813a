"""The chat in a terminal, against the real pipe and against a gateway that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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
    """Take what is said and the wish for an answer, and return what was said."""
    said = ""
    async for frame in socket:
        event = json.loads(frame)
        if event["type"] == "conversation.item.create":
            said = event["item"]["content"][0]["text"]
            await tell(socket, "conversation.item.added", item=event["item"])
        if event["type"] == "response.create":
            await tell(socket, "response.created", response={"id": "r1", **event["response"]})
            break
    return said


async def heard(socket: ServerConnection, kind: str) -> dict[str, Any]:
    """Read up to an event of this kind."""
    while True:
        event: dict[str, Any] = json.loads(await socket.recv())
        if event["type"] == kind:
            return event


async def answer(
    socket: ServerConnection, *pieces: str, status: str = "completed", response: str = "r1", **details: Any
) -> None:
    """Answer in pieces."""
    for piece in pieces:
        await tell(socket, "response.output_text.delta", response_id=response, delta=piece)
    ended = {"id": response, "status": status, "status_details": details or None}
    await tell(socket, "response.done", response=ended)


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


async def test_what_a_refused_message_leaves_behind_is_not_the_next_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A refused message is told, nothing is asked for it, and each line after it gets its own answer."""
    (tmp_path / "lines").write_text("too long\ntwo\nthree\n")
    asked_for: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        refused = await heard(socket, "conversation.item.create")
        await tell(socket, "error", error={"message": "65536 bytes at most", "event_id": refused["event_id"]})
        for number in range(2):
            await tell(socket, "error", error={"message": "an old one", "event_id": refused["event_id"]})
            await tell(socket, "response.created", response={"id": "old", "metadata": None})
            await answer(socket, "old answer", status="failed", response="old", error={"message": "of old"})
            asked_for.append(await asked(socket))
            await answer(socket, f"answer {number}")

    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        async with gateway(handler) as url:
            assert not await talk(Line(url))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("answer 0\nanswer 1\n", "65536 bytes at most\n")
    assert asked_for == ["two", "three"]


async def test_an_answer_that_is_not_begun_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the answer is refused the message says so, and so does what the gateway says of no event in particular."""

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        item = await heard(socket, "conversation.item.create")
        await tell(socket, "conversation.item.added", item=item["item"])
        wish = await heard(socket, "response.create")
        about = wish["event_id"] if path_of(socket).endswith("own") else None
        await tell(socket, "error", error={"message": "not now", "event_id": about})

    async with gateway(handler) as url:
        assert not await talk(Line(f"{url}/own"), once="Hello")
        assert not await talk(Line(f"{url}/all"), once="Hello")
    assert capsys.readouterr().err == "not now\nnot now\n"


async def test_an_answer_is_stopped_and_late_word_of_it_ignored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C stops each answer, also before it has begun; that it came too late is no failure of the next one."""
    (tmp_path / "lines").write_text("one\ntwo\n")

    async def handler(socket: ServerConnection) -> None:
        await tell(socket, "session.created", session={"id": "s1"})
        for name in ("r1", "r2"):
            item = await heard(socket, "conversation.item.create")
            await tell(socket, "conversation.item.added", item=item["item"])
            wish = await heard(socket, "response.create")
            if name == "r1":
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.05)
            await tell(socket, "response.created", response={"id": name, **wish["response"]})
            if name == "r2":
                await tell(socket, "response.output_text.delta", response_id=name, delta="Half")
                os.kill(os.getpid(), signal.SIGINT)
            cancel = await heard(socket, "response.cancel")
            assert cancel["response_id"] == name
            late = {"message": "no active response", "code": "response_cancel_not_active"}
            await tell(socket, "error", error={**late, "event_id": cancel["event_id"]})
            await answer(socket, status="cancelled", response=name, reason="client_cancelled")

    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        async with gateway(handler) as url:
            assert not await talk(Line(url))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("\nHalf\n", "")


async def test_a_connection_that_was_lost_between_two_lines_is_renewed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A connection that is lost while nothing is said is renewed for the next line, and that one is answered."""
    read, write = os.pipe()
    os.write(write, b"one\n")
    paths: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        paths.append(path_of(socket))
        await tell(socket, "session.created", session={"id": "s1"})
        await answer(socket, (await asked(socket)).upper())
        if len(paths) == 1:
            await socket.close(1012)
            os.write(write, b"two\n")
            os.close(write)
        else:
            await socket.wait_closed()

    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        async with gateway(handler) as url:
            assert await talk(Line(url))
    assert capsys.readouterr().out == "ONE\nTWO\n"
    assert len(paths) == 2


async def test_a_lost_connection_is_renewed_and_the_answer_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """After a loss in mid-answer the client comes back with its session and the last event, and the rest follows."""
    paths: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        paths.append(path_of(socket))
        await tell(socket, "session.created", session={"id": "s1"})
        if len(paths) == 1:
            await asked(socket)
            await tell(socket, "response.output_text.delta", response_id="r1", delta="Half")
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
