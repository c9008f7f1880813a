"""A client that speaks, and hears the answers: it plays a recording into a session, and notes all that it is told.

What is played does not depend on what comes back, so it is the same sound in each run, sample by sample. A lost
connection is renewed, and what had not arrived is said again. Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable

from apps.chaos.line import Event, Line, SessionLost
from apps.chaos.mouth import MS, Mouth
from apps.chaos.record import Answer, Call, Heard, Sounded

TOKENS = 16
"""Length of an answer at most."""
SETTLED_S = 2.0
"""Seconds after the last word in which nothing is under way any more, and the call can end."""
PATIENCE_S = 90.0
"""After the last word, nothing may be heard for so long while something is still under way."""

DETECTION = {"type": "server_vad", "create_response": True, "interrupt_response": False}
SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "max_output_tokens": TOKENS,
    "audio": {"input": {"transcription": {"model": "default"}, "turn_detection": DETECTION}},
}
CONFIGURE = "configure"
COME_BACK = frozenset({"resume_unavailable", "not_ready", "shutting_down"})
"""Errors that say no more than to come back, as the closed connection does that follows them."""
TRANSCRIPTION = "conversation.item.input_audio_transcription."

Clock = Callable[[], float]


class Caller:
    """Plays `sound`, in which `turns` turns of speech are known to be, and notes in `noted` what comes back.

    Without a known number of turns, it waits for those that it is told of.
    """

    def __init__(self, line: Line, noted: Call, clock: Clock, sound: bytes, turns: int = 0) -> None:
        self._line, self._noted, self._clock = line, noted, clock
        self._turns = turns
        self._mouth = Mouth(sound, line)
        self._configured = self._owed = False
        self._last = time.monotonic()

    def connected(self, gateway: int) -> None:
        """The line is there, the first time or again."""
        self._last = time.monotonic()
        self._mouth.hold()
        self._noted.via.append((self._clock(), gateway))

    async def play(self) -> None:
        """Play all of it, and return when all of it is transcribed and answered.

        Raises:
            SessionLost: something is under way of which nothing more is heard, or the session does not go on.
        """
        speaking: asyncio.Task[None] | None = None
        try:
            await self._line.open()
            self._noted.session = self._line.session
            await self._configure()
            self._mouth.begin()
            speaking = asyncio.create_task(self._mouth.run(), name="a caller's mouth")
            while not self._settled():
                await self._hear(SETTLED_S)
                self._check_patience(self._mouth.over)
        finally:
            self._noted.again = self._mouth.again
            if speaking is not None:
                speaking.cancel()
                await asyncio.wait([speaking])
            await self._line.close()

    async def _configure(self) -> None:
        await self._say_how()
        while not self._configured:
            await self._hear(SETTLED_S)
            self._check_patience(0.0)

    def _check_patience(self, since: float) -> None:
        if time.monotonic() > max(self._last, since) + PATIENCE_S:
            raise SessionLost(f"it was not over, and nothing was heard for {PATIENCE_S:.0f} s")

    async def _say_how(self) -> None:
        await self._line.put({"type": "session.update", "event_id": CONFIGURE, "session": SESSION})

    def _settled(self) -> bool:
        """Whether all that was said has been heard and answered."""
        turns, answers = self._noted.turns, self._noted.answers
        if len(turns) < self._turns or self._owed:
            return False
        if not all(turn.finals for turn in turns.values()) or not all(one.ends for one in answers.values()):
            return False
        return time.monotonic() - max(self._last, self._mouth.over) > SETTLED_S

    async def _hear(self, seconds: float) -> None:
        """One event more, or a while without one."""
        hearing = asyncio.create_task(self._line.next(), name="a caller's ear")
        try:
            if (await asyncio.wait([hearing], timeout=seconds))[0]:
                await self._take(hearing.result())
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])

    async def _take(self, event: Event | None) -> None:
        if event is not None:
            self._note(event)
        elif not self._configured:
            await self._say_how()

    # ---- what it is told -----------------------------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        self._last = time.monotonic()
        kind: str = event["type"]
        if kind == "error":
            self._refused(event["error"])
        elif kind == "session.updated":
            self._updated(event)
        elif kind.startswith("response."):
            self._note_answer(kind, event)
        else:
            self._note_heard(kind, event)

    def _refused(self, error: Event) -> None:
        if error.get("code") not in COME_BACK:
            self._noted.error = f"{error.get('code')}: {error.get('message')}"

    def _updated(self, event: Event) -> None:
        if event.get("resumed"):
            self._mouth.go_on(event.get("input_audio_ms", 0) * MS)
        else:
            self._configured = True

    def _note_heard(self, kind: str, event: Event) -> None:
        """What concerns a turn of speech."""
        if kind == "conversation.item.added" and event["item"]["role"] == "user":
            self._turn(event["item"]["id"]).added += 1
        elif kind == "input_audio_buffer.committed":
            self._turn(event["item_id"]).committed += 1
        elif kind == "input_audio_buffer.speech_started":
            self._turn(event["item_id"]).starts.append(event["audio_start_ms"])
        elif kind == "input_audio_buffer.speech_stopped":
            self._turn(event["item_id"]).stops.append(event["audio_end_ms"])
        elif kind.startswith(TRANSCRIPTION):
            self._note_words(self._turn(event["item_id"]), kind.removeprefix(TRANSCRIPTION), event)

    def _note_words(self, turn: Heard, kind: str, event: Event) -> None:
        if kind == "delta":
            turn.pieces.append(event["delta"])
        elif kind == "completed":
            turn.finals.append(event["transcript"])
            self._owed = self._owed or bool(event["transcript"].strip())
        elif kind == "failed":
            turn.finals.append("")
            turn.error = f"{event['error'].get('code')}: {event['error'].get('message')}"

    def _turn(self, item: str) -> Heard:
        return self._noted.turns.setdefault(item, Heard(item, self._clock()))

    # ---- answers -------------------------------------------------------------------------------------------------

    def _note_answer(self, kind: str, event: Event) -> None:
        """What concerns an answer."""
        if kind == "response.created":
            self._owed = False
            self._answer(event["response"]["id"])
        elif kind == "response.done":
            self._done(event["response"])
        elif kind == "response.output_audio_transcript.delta":
            self._answer(event["response_id"]).words.append(event["delta"])
        elif kind == "response.output_audio.delta":
            self._sounded(self._answer(event["response_id"]), base64.b64decode(event["delta"]))
        elif kind == "response.output_audio.done":
            self._answer(event["response_id"]).closed += 1

    def _answer(self, response: str) -> Answer:
        return self._noted.answers.setdefault(response, Answer())

    def _sounded(self, answer: Answer, sound: bytes) -> None:
        answer.heard.update(sound)
        answer.samples += len(sound) // 2
        answer.pieces.append(Sounded(self._clock(), answer.samples, answer.heard.digest()))

    def _done(self, response: Event) -> None:
        answer = self._answer(response["id"])
        answer.ends.append(response["status"])
        parts = [part for item in response["output"] for part in item["content"]]
        answer.said = "".join(part.get("transcript") or "" for part in parts)
        if (details := response.get("status_details")) and details.get("error"):
            answer.code = str(details["error"].get("code"))
