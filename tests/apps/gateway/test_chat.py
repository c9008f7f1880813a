"""The line protocol, pure and over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

from apps.gateway.protocols.chat import Chat
from pipeline.messages import Finished, Message, Problem, Turn
from tests.apps.gateway.harness import DEADLINE_S, Running, echo, gateway, spoken, until

Socket = websockets.ClientConnection


@asynccontextmanager
async def chat(running: Running, name: str = "s1", query: str = "") -> AsyncGenerator[Socket, None]:
    """Connect to a chat."""
    async with websockets.connect(f"{running.ws}/chat/{name}{query}") as socket:
        yield socket


async def frames(socket: Socket) -> list[str]:
    """Return the frames up to `<END>`."""
    got: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while not got or got[-1] != "<END>":
            got.append(str(await socket.recv()))
    return got


async def test_a_line_is_answered_in_pieces() -> None:
    """A line gets its answer as it is made, then `<END>`; the next line goes on with the conversation."""
    async with gateway() as running, chat(running) as socket:
        await socket.send("hello there\n")
        first = await frames(socket)
        await socket.send("more")
        await frames(socket)

    assert first == ["You", " said:", " hello", " there", "<END>"]
    assert [u.text for u in running.stages.turns[1].conversation] == ["hello there", "You said: hello there", "more"]


async def test_lines_sent_at_once_are_answered_in_order() -> None:
    """Lines that come while an answer is under way wait for it, bad ones included."""
    async with gateway() as running, chat(running) as socket:
        for line in ("one", "  ", "two", "three"):
            await socket.send(line)
        answers = ["".join(await frames(socket)) for _ in range(4)]

    assert answers == [
        "You said: one<END>",
        "<ERROR empty_text: the line holds no text><END>",
        "You said: two<END>",
        "You said: three<END>",
    ]


async def test_what_goes_wrong_is_told_before_the_end() -> None:
    """A refused or failed line gets one error frame and `<END>`."""

    def fail(turn: Turn) -> Iterable[Message]:
        yield Finished(turn.session, turn.turn, status="failed", problem=Problem("context_length_exceeded", "too long"))

    async with gateway(answer=fail) as running, chat(running) as socket:
        await socket.send("x")
        failed = await frames(socket)
        await socket.send("y" * 70_000)
        long = await frames(socket)
        await socket.send(b"\x00")
        binary = await frames(socket)

    assert failed == ["<ERROR context_length_exceeded: too long>", "<END>"]
    assert long[0].startswith("<ERROR string_above_max_length: ")
    assert binary[0].startswith("<ERROR invalid_frame: ")


async def test_a_megabyte_of_text_gets_an_error_and_the_chat_goes_on() -> None:
    """A line of a megabyte, and of more, is refused in words; the connection stays."""
    async with gateway() as running, chat(running) as socket:
        await socket.send("y" * 1_000_000)
        assert (await frames(socket))[0].startswith("<ERROR string_above_max_length: ")
        await socket.send("y" * 2_000_000)
        assert (await frames(socket))[0].startswith("<ERROR message_too_large: ")
        await socket.send("hi")
        assert (await frames(socket))[-2:] == [" hi", "<END>"]


async def test_a_long_line_that_waits_is_refused_when_it_is_its_turn() -> None:
    """A line that is too long for the log, too, and comes while another is answered, costs its sender nothing else."""
    async with gateway(answer=lambda turn: ()) as running, chat(running) as socket:
        for line in ("one", "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 400_000, "two"):
            await socket.send(line)
        first = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
        await until(lambda: running.count("events_in_total", type="say") == 3)
        running.stages.answer = echo
        for message in echo(first):
            await running.stages.say(message, running.stages.headers[0]["reply-to"])
        told = ["".join(await frames(socket)) for _ in range(3)]

    why = "the line has 1200000 bytes; at most 65536 are taken"
    assert told == ["You said: one<END>", f"<ERROR string_above_max_length: {why}><END>", "You said: two<END>"]


async def test_too_many_waiting_lines_close_the_chat() -> None:
    """Who sends line after line without waiting for answers is closed, in words."""
    async with gateway(answer=lambda turn: (), max_queued_lines=3) as running, chat(running) as socket:
        for _ in range(6):
            await socket.send("x")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), DEADLINE_S)

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "too many lines wait for their answer")


async def test_a_flooded_chat_is_forgiven_on_return() -> None:
    """Who was closed for too many lines may come back to the conversation."""
    async with gateway(answer=lambda turn: (), max_queued_lines=3) as running:
        async with chat(running) as socket:
            for _ in range(40):
                await socket.send("x")
            await asyncio.wait_for(socket.wait_closed(), DEADLINE_S)
        running.stages.answer = echo
        for message in echo(running.stages.turns[0]):
            await running.stages.say(message, running.stages.headers[0]["reply-to"])
        async with chat(running) as socket:
            await asyncio.sleep(0.6)
            await socket.send("more")
            assert (await frames(socket))[-1] == "<END>"


async def test_the_conversation_waits_for_its_client() -> None:
    """Who comes back under the same name goes on with the conversation; other names know nothing of it."""
    async with gateway() as running:
        async with chat(running) as socket:
            await socket.send("one")
            await frames(socket)
        async with chat(running) as socket:
            await socket.send("two")
            await frames(socket)
        async with chat(running, "s2") as socket:
            await socket.send("three")
            await frames(socket)

    assert [len(turn.conversation) for turn in running.stages.turns] == [1, 3, 1]


async def test_an_answer_made_meanwhile_is_told_on_return() -> None:
    """A turn goes on without its client, who gets the whole answer when it is back."""
    async with gateway(answer=lambda turn: ()) as running:
        async with chat(running) as socket:
            await socket.send("one")
            turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
        for message in echo(turn):
            await running.stages.say(message, running.stages.headers[0]["reply-to"])
        async with chat(running) as socket:
            assert "".join(await frames(socket)) == "You said: one<END>"


async def test_an_answer_under_way_is_told_from_its_beginning_on_return() -> None:
    """Who comes back in the middle of an answer gets all of it."""
    async with gateway(answer=lambda turn: ()) as running:
        async with chat(running) as socket:
            await socket.send("one")
            turn = await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
            *pieces, last, end = spoken(turn, "a b c")
            for piece in pieces:
                await running.stages.say(piece, running.stages.headers[0]["reply-to"])
            assert [await socket.recv(), await socket.recv()] == ["a", " b"]
        async with chat(running) as socket:
            for piece in (last, end):
                await running.stages.say(piece, running.stages.headers[0]["reply-to"])
            assert "".join(await frames(socket)) == "a b c<END>"


async def test_a_line_that_waited_for_nobody_is_told_on_return() -> None:
    """Lines that wait while their client stays away are not answered, and it is told so of each, in their order."""
    async with gateway(answer=lambda turn: (), grace_s=0.3, slack_s=0.1) as running:
        async with chat(running) as socket:
            for line in ("one", "two", "three"):
                await socket.send(line)
            await asyncio.wait_for(running.stages.asked.get(), DEADLINE_S)
            await asyncio.sleep(0.1)
        seat = running.hub.seats.get("chat.s1")
        assert seat is not None
        await until(lambda: not len(seat.session.turns))
        await asyncio.sleep(0.1)
        async with chat(running) as socket:
            told = [await frames(socket) for _ in range(3)]

    away = ["<ERROR client_away: nobody waited for the answer>", "<END>"]
    assert told == [["<END>"], away, away]


async def test_the_newest_connection_of_a_session_wins() -> None:
    """The older socket of a session is closed with a code of its own."""
    async with gateway() as running, chat(running) as old, chat(running) as new:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(old.recv(), DEADLINE_S)
        await new.send("hi")
        assert (await frames(new))[-1] == "<END>"

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4409


@pytest.mark.parametrize("name", ["a%20b", "x" * 129, "a/b", "..%2f", "%00"])
async def test_names_are_plain(name: str) -> None:
    """A session's name is short and plain; anything else is refused in words."""
    async with gateway() as running, chat(running, name) as socket:
        assert (await frames(socket))[0].startswith("<ERROR invalid_session: ")


async def test_an_unknown_model_is_told() -> None:
    """A chat with a model that is not served is told so and closed."""
    async with gateway() as running, chat(running, query="?model=gpt-9") as socket:
        assert (await frames(socket))[0].startswith("<ERROR model_not_found: ")


@pytest.mark.parametrize("text", ["<END>", "<ERROR x: y>"])
def test_an_answer_cannot_forge_our_marks(text: str) -> None:
    """A piece of text that looks like a mark comes in two frames."""
    event: dict[str, Any] = {"type": "response.output_text.delta", "delta": text}

    assert Chat(longest=9).frames([event]) == [text[0], text[1:]]
