"""A client of `/v1/realtime` that does not give up: it notes what it is told when, and resumes after a lost socket.

What it has sent and not seen acknowledged it sends again after a reconnect, under the same `event_id`, which gateways
take once. Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from apps.chaos.record import Piece, Record, Turn
from pipeline.errors import PenstockError

ANSWER_S = 90.0
"""An answer that takes so long has been lost."""
OPEN_S = 5.0
BACK_S = 45.0
"""Within what a session is gone on with, while its gateways are away."""
RETRY_S = 0.1
PING_S = 5.0
LOST = frozenset({"resume_failed", "session_taken", "session_expired"})
"""Errors after which a session cannot be gone on with; any other that names no event of ours says to come back."""

LEAVING = "shutting_down"
"""What a gateway answers that begins nothing more: another one will."""

Sent = dict[str, Any]
Clock = Callable[[], float]


class SessionLost(PenstockError):
    """A session that cannot be gone on with, although it should."""


class Client:
    """One user: plays one session after the other, at whichever of `urls` lets it in.

    `number` tells clients apart; `clock` gives the seconds that are noted; answers have `tokens` at most.
    """

    def __init__(self, number: int, urls: Sequence[str], record: Record, clock: Clock, *, tokens: int) -> None:
        self.number = number
        self._urls, self._record, self._clock, self._tokens = urls, record, clock, tokens
        self._at = number % len(urls)
        self._socket: ClientConnection | None = None
        self._begin()

    def _begin(self) -> None:
        """Nothing is known of a session yet."""
        self._session = self._last = ""
        self._seen: set[str] = set()
        self._unheard: dict[str, Sent] = {}
        self._turns: dict[str, Turn] = {}
        self._turn: Turn | None = None
        self._moving = False

    async def open(self) -> None:
        """Begin a session.

        Raises:
            SessionLost: no gateway lets it in.
        """
        await self.close()
        self._begin()
        await self._connect()
        async with _within(BACK_S):
            while not self._session:
                await self._hear()

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await socket.close()

    async def ask(self, turn: Turn, *, again: int = 0) -> None:
        """Ask `turn` in the session's conversation, and note its answer in it.

        `again` counts the times that the same question was put off: then it stands in the conversation already.

        Raises:
            SessionLost: there was no end to it in time, or its session could not be gone on with.
        """
        self._turn, turn.session = turn, self._session
        self._turns[turn.name] = turn
        turn.via.append((self._clock(), self._at))
        if not again:
            await self._send(_item(turn, self.number))
        await self._send(_response(turn, self.number, self._tokens, again))
        try:
            async with _within(ANSWER_S):
                while turn.ended is None:
                    await self._hear()
        finally:
            self._turn = None

    # ---- the socket ----------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Connect to a gateway, going on with the session if there is one."""
        deadline, why = time.monotonic() + BACK_S, ""
        while time.monotonic() < deadline:
            try:
                self._socket = await connect(
                    self._url(), compression=None, max_queue=None, open_timeout=OPEN_S, ping_interval=PING_S
                )
            except (InvalidHandshake, InvalidMessage, OSError, TimeoutError, ConnectionClosed, EOFError) as error:
                why = str(error) or type(error).__name__
                self._at = (self._at + 1) % len(self._urls)
                await asyncio.sleep(RETRY_S)
            else:
                if self._turn is not None:
                    self._turn.via.append((self._clock(), self._at))
                return
        raise SessionLost(f"no gateway took it within {BACK_S:.0f} s: {why}")

    def _url(self) -> str:
        query = {"resume": self._session, "last_event_id": self._last} if self._last else {}
        return f"{self._urls[self._at]}/v1/realtime" + (f"?{urlencode(query)}" if query else "")

    async def _again(self) -> None:
        """The socket is lost: go on at another gateway."""
        self._record.reconnects += 1
        self._at = (self._at + 1) % len(self._urls)
        await asyncio.sleep(RETRY_S)
        await self._connect()
        for event in list(self._unheard.values()):
            await self._put(event)

    async def _send(self, event: Sent) -> None:
        self._unheard[event["event_id"]] = event
        await self._put(event)

    async def _put(self, event: Sent) -> None:
        assert self._socket is not None
        try:
            await self._socket.send(json.dumps(event))
        except ConnectionClosed:
            return  # the next read finds it lost, and everything unheard is sent again

    async def _hear(self) -> None:
        assert self._socket is not None
        try:
            frame = await self._socket.recv()
        except ConnectionClosed:
            await self._again()
            return
        self._note(json.loads(frame))
        if self._moving:
            self._moving = False
            await self._socket.close()
            await self._again()

    # ---- what it is told -----------------------------------------------------------------------------------------

    def _note(self, event: Sent) -> None:
        if event["type"] == "error":
            self._refused(event["error"])
            return
        identity = event["event_id"]
        self._record.repeated_events += identity in self._seen
        self._seen.add(identity)
        self._last = identity
        match event["type"]:
            case "session.created":
                self._begun(event["session"]["id"])
            case "conversation.item.added":
                self._heard(lambda sent: sent.get("item", {}).get("id") == event["item"]["id"])
            case "response.created":
                self._created(event["response"])
            case "response.output_text.delta":
                if (turn := self._of(event["response_id"])) is not None:
                    turn.pieces.append(Piece(self._clock(), event["delta"]))
            case "response.done":
                self._done(event["response"])

    def _heard(self, of: Callable[[Sent], bool]) -> None:
        """What of our events has been acknowledged."""
        self._unheard = {name: sent for name, sent in self._unheard.items() if not of(sent)}

    def _begun(self, session: str) -> None:
        if self._session and session != self._session:
            raise SessionLost(f"instead of going on with it, the gateway began session {session}")
        self._session = session

    def _created(self, response: dict[str, Any]) -> None:
        turn = self._turns.get((response.get("metadata") or {}).get("turn", ""))
        if turn is None:
            return
        self._heard(lambda sent: sent["type"] == "response.create")
        if turn.response and turn.response != response["id"]:
            self._record.troubles.append(f"{turn.label} was answered twice: {response['id']}, too")
        turn.response = turn.response or response["id"]

    def _of(self, response: str) -> Turn | None:
        return next((turn for turn in self._turns.values() if turn.response == response), None)

    def _done(self, response: dict[str, Any]) -> None:
        turn = self._of(response["id"])
        if turn is None:
            return
        turn.ends.append(response["status"])
        turn.said = "".join(part["text"] for item in response["output"] for part in item["content"])
        turn.tokens = (response.get("usage") or {}).get("output_tokens", 0)
        if (details := response.get("status_details")) and details.get("error"):
            turn.code = str(details["error"].get("code"))
            turn.error = f"{turn.code}: {details['error'].get('message')}"
        turn.ended = self._clock()

    def _refused(self, error: dict[str, Any]) -> None:
        """An error about an event of ours ends the turn, unless it says to go elsewhere; others may end the session."""
        text = f"{error.get('code')}: {error.get('message')}"
        if error.get("code") in LOST:
            raise SessionLost(text)
        refused = self._unheard.pop(error.get("event_id") or "", None)
        if refused is None or self._turn is None:
            return
        if error.get("code") == LEAVING:
            again = {**refused, "event_id": f"{refused['event_id']}_again"}  # the former has been answered: with a no
            self._unheard[again["event_id"]] = again
            self._moving = True
            return
        self._turn.error = text
        self._turn.ended = self._clock()


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SessionLost(f"nothing more came within {seconds:.0f} s") from None


def _item_id(turn: Turn, client: int) -> str:
    return f"item_{client}_{turn.name.replace('.', '_')}"


def _item(turn: Turn, client: int) -> Sent:
    content = [{"type": "input_text", "text": turn.question.text}]
    item = {"id": _item_id(turn, client), "type": "message", "role": "user", "content": content}
    return {"type": "conversation.item.create", "event_id": f"{item['id']}_create", "item": item}


def _response(turn: Turn, client: int, tokens: int, again: int) -> Sent:
    chosen = {"max_output_tokens": tokens, "metadata": {"turn": turn.name}, **turn.question.sampling}
    return {"type": "response.create", "event_id": f"{_item_id(turn, client)}_respond_{again}", "response": chosen}
