"""A client of `/v1/realtime` that does not give up: it notes what it is told when, and resumes after a lost socket.

What it has sent and not seen acknowledged it sends again after a reconnect, under the same `event_id`, which gateways
take once. Knows nothing of faults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from apps.chaos.line import Line, within
from apps.chaos.record import Piece, Record, Turn

ANSWER_S = 90.0
"""An answer that takes so long has been lost."""
LEAVING = "shutting_down"
"""What a gateway answers that begins nothing more: another one will."""

Sent = dict[str, Any]
Clock = Callable[[], float]


class Client:
    """One user: plays one session after the other, at whichever of `urls` lets it in.

    `number` tells clients apart; `clock` gives the seconds that are noted; answers have `tokens` at most.
    """

    def __init__(self, number: int, urls: Sequence[str], record: Record, clock: Clock, *, tokens: int) -> None:
        self.number = number
        self._urls, self._record, self._clock, self._tokens = urls, record, clock, tokens
        self._begin(number)

    def _begin(self, gateway: int) -> None:
        """Nothing is known of a session yet."""
        self._line = Line(self._urls, gateway, self._record, self._connected)
        self._unheard: dict[str, Sent] = {}
        self._turns: dict[str, Turn] = {}
        self._turn: Turn | None = None
        self._moving = False

    def _connected(self, gateway: int) -> None:
        if self._turn is not None:
            self._turn.via.append((self._clock(), gateway))

    async def open(self) -> None:
        """Begin a session.

        Raises:
            SessionLost: no gateway lets it in.
        """
        await self.close()
        self._begin(self._line.at)
        await self._line.open()

    async def close(self) -> None:
        """Hang up."""
        await self._line.close()

    async def ask(self, turn: Turn, *, again: int = 0) -> None:
        """Ask `turn` in the session's conversation, and note its answer in it.

        `again` counts the times that the same question was put off: then it stands in the conversation already.

        Raises:
            SessionLost: there was no end to it in time, or its session could not be gone on with.
        """
        self._turn, turn.session = turn, self._line.session
        self._turns[turn.name] = turn
        turn.via.append((self._clock(), self._line.at))
        if not again:
            await self._send(_item(turn, self.number))
        await self._send(_response(turn, self.number, self._tokens, again))
        try:
            async with within(ANSWER_S):
                while turn.ended is None:
                    await self._hear()
        finally:
            self._turn = None

    # ---- the connection ------------------------------------------------------------------------------------------

    async def _send(self, event: Sent) -> None:
        self._unheard[event["event_id"]] = event
        await self._line.put(event)

    async def _hear(self) -> None:
        event = await self._line.next()
        if event is None:
            await self._send_again()
            return
        self._note(event)
        if self._moving:
            self._moving = False
            await self._line.move()
            await self._send_again()

    async def _send_again(self) -> None:
        for event in list(self._unheard.values()):
            await self._line.put(event)

    # ---- what it is told -----------------------------------------------------------------------------------------

    def _note(self, event: Sent) -> None:
        match event["type"]:
            case "error":
                self._refused(event["error"])
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
        """An error about an event of ours ends the turn, unless it says to go elsewhere."""
        text = f"{error.get('code')}: {error.get('message')}"
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


def _item_id(turn: Turn, client: int) -> str:
    return f"item_{client}_{turn.name.replace('.', '_')}"


def _item(turn: Turn, client: int) -> Sent:
    content = [{"type": "input_text", "text": turn.question.text}]
    item = {"id": _item_id(turn, client), "type": "message", "role": "user", "content": content}
    return {"type": "conversation.item.create", "event_id": f"{item['id']}_create", "item": item}


def _response(turn: Turn, client: int, tokens: int, again: int) -> Sent:
    chosen = {"output_modalities": ["text"], "max_output_tokens": tokens, "metadata": {"turn": turn.name}}
    return {
        "type": "response.create",
        "event_id": f"{_item_id(turn, client)}_respond_{again}",
        "response": {**chosen, **turn.question.sampling},
    }
