"""The chat in a terminal: a client of `/v1/realtime` like any other, that streams answers and comes back after a loss.

Knows the protocol's events, and nothing of what stands behind the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing

from rich.console import Console

from apps.chat.line import LOST, Event, Line

TEXT_ONLY = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}


class Conversation:
    """Says something and streams the answer; `stop` gives the answer up.

    What is sent has a name, and only what answers to that name counts: word of what was said before may come late.
    """

    def __init__(self, line: Line, console: Console) -> None:
        self._line = line
        self._console = console
        self._events = line.events()
        self._names = (f"said_{secrets.token_hex(4)}_{n}" for n in itertools.count(1))
        self._response = ""
        self.answering = False
        self.stopping = False

    async def start(self) -> None:
        """Ask for answers in text."""
        await self._line.send({**TEXT_ONLY, "event_id": next(self._names)})

    async def say(self, text: str) -> bool:
        """Send `text` and show the answer as it comes; whether it was completed."""
        if not await self._line.ready():
            self._note("(the connection was lost, and the conversation with it; this is a new one)")
            await self.start()
        self.answering, self.stopping, self._response = True, False, ""
        try:
            return await self._put(text) and await self._answer()
        finally:
            self.answering = False

    async def stop(self) -> None:
        """Give the answer up, now or once it has begun."""
        self.stopping = True
        if self._response:
            await self._line.send(
                {"type": "response.cancel", "event_id": next(self._names), "response_id": self._response}
            )

    async def close(self) -> None:
        """Hang up."""
        await self._events.aclose()
        await self._line.close()

    async def _put(self, text: str) -> bool:
        """Add `text` to the conversation; whether it was taken. Nothing is to be answered where it was not."""
        name = next(self._names)
        item = {"id": name, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self._line.send({"type": "conversation.item.create", "event_id": name, "item": item})
        while event := await self._next(name):
            if event["type"] == "conversation.item.added" and event["item"]["id"] == name:
                return True
        return False

    async def _answer(self) -> bool:
        """Ask for an answer and show it; whether it was completed."""
        name = next(self._names)
        await self._line.send({"type": "response.create", "event_id": name, "response": {"metadata": {"name": name}}})
        while event := await self._next(name):
            kind = event["type"]
            if kind == "response.created" and (event["response"].get("metadata") or {}).get("name") == name:
                self._response = event["response"]["id"]
                if self.stopping:
                    await self.stop()
            elif kind == "response.output_text.delta" and event["response_id"] == self._response:
                self._console.out(event["delta"], end="", highlight=False)
            elif kind == "response.done" and event["response"]["id"] == self._response:
                self._console.out("")
                return self._ended(event["response"])
        return False

    async def _next(self, name: str) -> Event | None:
        """What the gateway says next; None where the session is lost, or what was sent under `name` is refused."""
        async for event in self._events:
            if event is LOST:
                await self.start()
                self._failed("the connection was lost, and the conversation with it; please say it again")
                return None
            if event["type"] != "error":
                return event
            about = event["error"].get("event_id")
            if about in (name, None):
                self._failed(event["error"]["message"])
            if about == name or (about is None and not self._response):
                return None
        raise AssertionError("events end with an error")

    def _ended(self, response: Event) -> bool:
        status = response["status"]
        details = response.get("status_details") or {}
        if status == "failed":
            return self._failed((details.get("error") or {}).get("message") or "the answer failed")
        if status != "completed":
            self._note(f"({status}: {details.get('reason', 'no reason given')})")
        return bool(status == "completed")

    def _failed(self, why: str) -> bool:
        Console(stderr=True).print(why, style="red", markup=False, highlight=False)
        return False

    def _note(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(text, style="dim", markup=False, highlight=False)


async def lines(console: Console) -> AsyncGenerator[str, None]:
    """What is typed, line by line; ends with the end of the input. The terminal's own line editing works."""
    loop = asyncio.get_running_loop()
    while True:
        typed: asyncio.Future[str | None] = loop.create_future()

        def read(answer: asyncio.Future[str | None] = typed) -> None:
            try:
                line: str | None = console.input("[bold cyan]>[/] ") if console.is_terminal else _piped()
            except (EOFError, KeyboardInterrupt):
                line = None
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, answer, line)

        threading.Thread(target=read, daemon=True).start()  # of its own: a terminal's read cannot be cancelled
        line = await typed
        if line is None:
            return
        if line.strip():
            yield line.strip()


def _settle(answer: asyncio.Future[str | None], line: str | None) -> None:
    if not answer.done():
        answer.set_result(line)


def _piped() -> str | None:
    return sys.stdin.readline() or None


async def talk(line: Line, *, once: str | None = None) -> bool:
    """Hold a conversation until the input ends, or send `once` alone; whether every answer was completed.

    Raises:
        NobodyListens: no gateway answers, or it did not come back.
        Refused: it answers, and refuses.
    """
    console = Console(force_terminal=None if sys.stdin.isatty() else False, soft_wrap=True)
    if not await line.open():
        Console(stderr=True).print("that session is gone; this is a new one", style="dim")
    conversation = Conversation(line, console)
    await conversation.start()
    talking = asyncio.ensure_future(_talk(conversation, console, once))
    stops: set[asyncio.Task[None]] = set()

    def interrupted() -> None:
        if conversation.answering and not conversation.stopping:
            conversation.stopping = True
            stops.add(stop := asyncio.ensure_future(conversation.stop()))
            stop.add_done_callback(stops.discard)
        else:
            talking.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)
    try:
        return await talking
    except asyncio.CancelledError:
        return False
    finally:
        await conversation.close()


async def _talk(conversation: Conversation, console: Console, once: str | None) -> bool:
    if once is not None:
        return await conversation.say(once)
    if console.is_terminal:
        console.print("Ctrl-C stops an answer, once more or Ctrl-D leaves.", style="dim")
    completed = True
    async with aclosing(lines(console)) as typed:
        async for text in typed:
            completed = await conversation.say(text) and completed
    return completed
