"""Clients that speak: each plays a recording into a session in real time, and notes all that is heard and answered.

What is played does not depend on what comes back, so it is the same sound in each run, sample by sample. A lost socket
ends a call: what was said meanwhile nobody can say again. Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from apps.chaos.plan import Plan
from apps.chaos.record import Call, Heard, Record
from apps.chat.line import NobodyListens, Refused
from apps.voice.client import Call as Line
from apps.voice.client import CallLost, Microphone, call
from pipeline.voice import RATE

SENTENCES = 4
"""Sentences in a call."""
LEAD_S, REST_S = 0.5, 2.5
"""Seconds of silence before the first sentence, and after each."""
TOKENS = 16
"""Length of an answer at most."""
SETTLED_S = 2.0
"""Seconds after the last word in which nothing is under way any more, and the call can end."""
LAST_WORDS_S = 60.0
"""What the last transcript and answer may take."""

DETECTION = {"type": "server_vad", "create_response": True, "interrupt_response": False}
SESSION = {
    "type": "realtime",
    "output_modalities": ["text"],
    "max_output_tokens": TOKENS,
    "audio": {"input": {"transcription": {"model": "default"}, "turn_detection": DETECTION}},
}

Event = dict[str, Any]
Told = Callable[[Call], None]
"""A call is over."""


class Recording(NamedTuple):
    """What is played: PCM16 at 24 kHz, what it says, and how many turns of speech were heard in it, as far as known."""

    number: int
    sound: bytes
    says: tuple[str, ...]
    turns: int = 0


def recordings(plan: Plan) -> tuple[Recording, ...]:
    """What the callers of `plan` play: sentences of the demo's domain, synthesised, with rests between."""
    if not plan.voices:
        return ()
    from apps.bench.voice_clips import demo_clips

    clips = demo_clips(SENTENCES * plan.recordings)
    found = []
    for number in range(plan.recordings):
        said = clips[number * SENTENCES : (number + 1) * SENTENCES]
        sound = _silence(LEAD_S) + b"".join(clip.sound + _silence(REST_S) for clip in said)
        found.append(Recording(number, sound, tuple(clip.text for clip in said)))
    return tuple(found)


def counted(played: Sequence[Recording], record: Record) -> tuple[Recording, ...]:
    """`played`, with the turns that were heard in each: where a worker dies, they may be told late."""
    turns = {call.recording: len(call.turns) for call in record.calls}
    return tuple(one._replace(turns=turns.get(one.number, 0)) for one in played)


def _silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE))


class Calls:
    """The callers of one run, which note into `record`; `clock` gives the seconds. `told` hears of each call's end."""

    def __init__(
        self,
        plan: Plan,
        played: Sequence[Recording],
        urls: Sequence[str],
        record: Record,
        clock: Callable[[], float],
        told: Told,
    ) -> None:
        self._plan, self._played, self._urls, self._record = plan, played, urls, record
        self._clock, self._told = clock, told
        self._over = asyncio.Event()

    def finish(self) -> None:
        """Let each caller hang up after the recording that is being played."""
        self._over.set()

    async def once(self) -> None:
        """Play every recording once."""
        waiting = iter(self._played)
        await self._play([waiting] * self._plan.voices)

    async def steadily(self) -> None:
        """Play recordings until `finish`."""
        await self._play([self._order(number) for number in range(self._plan.voices)])

    def _order(self, caller: int) -> Iterator[Recording]:
        chance = random.Random(f"{self._plan.seed}:caller:{caller}")
        while True:
            yield chance.choice(self._played)

    async def _play(self, orders: Sequence[Iterator[Recording]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, order in enumerate(orders if self._played else ()):
                tasks.create_task(self._caller(number, order))

    async def _caller(self, number: int, order: Iterator[Recording]) -> None:
        for recording in order:
            if self._over.is_set():
                return
            noted = Call(recording.number, number, self._clock())
            self._record.calls.append(noted)
            try:
                async with call(self._urls[number % len(self._urls)], SESSION) as line:
                    await Caller(line, noted, self._clock).play(recording)
            except (CallLost, NobodyListens, Refused, TimeoutError) as error:
                noted.error = str(error) or f"it was not over {LAST_WORDS_S:.0f} s after the last word"
            noted.ended = self._clock()
            self._told(noted)


class Caller:
    """Plays into `line`, and notes in `noted` what comes back."""

    def __init__(self, line: Line, noted: Call, clock: Callable[[], float]) -> None:
        self._line, self._noted, self._clock = line, noted, clock
        noted.session = line.session
        self._last = time.perf_counter()

    async def play(self, recording: Recording) -> None:
        """Play `recording`, and return when all of it is transcribed and answered.

        Raises:
            CallLost: the connection broke.
            TimeoutError: something is still under way long after the last word.
        """
        microphone = Microphone()
        microphone.say(recording.sound)
        speaking = asyncio.create_task(microphone.run(self._line), name="a caller's microphone")
        try:
            async with asyncio.timeout(len(recording.sound) / 2 / RATE + LAST_WORDS_S):
                while len(self._noted.turns) < recording.turns or not self._settled(microphone.quiet_since):
                    await self._hear(speaking)
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])

    def _settled(self, quiet_since: float) -> bool:
        now = time.perf_counter()
        busy = any(not turn.finals for turn in self._noted.turns.values()) or not all(self._noted.answers.values())
        return not busy and now - max(self._last, quiet_since) > SETTLED_S

    async def _hear(self, speaking: asyncio.Task[None]) -> None:
        """One event more, or a while without one."""
        hearing = asyncio.create_task(self._line.next(), name="a caller's ear")
        try:
            done, _ = await asyncio.wait([hearing, speaking], timeout=SETTLED_S, return_when=asyncio.FIRST_COMPLETED)
            if hearing in done:
                self._note(hearing.result().event)
            elif speaking in done:
                speaking.result()  # it ends with an error alone
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])

    # ---- what it is told -----------------------------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        self._last = time.perf_counter()
        noted, identity = self._noted, event.get("event_id", "")
        noted.repeated_events += identity in noted.seen
        noted.seen.add(identity)
        match event["type"]:
            case "error":
                noted.error = f"{event['error'].get('code')}: {event['error'].get('message')}"
            case "response.created":
                noted.answers.setdefault(event["response"]["id"], [])
            case "response.done":
                noted.answers.setdefault(event["response"]["id"], []).append(event["response"]["status"])
            case _:
                self._note_heard(event)

    def _note_heard(self, event: Event) -> None:
        """What concerns a turn of speech."""
        kind: str = event["type"]
        if kind == "conversation.item.added" and event["item"]["role"] == "user":
            self._turn(event["item"]["id"]).added += 1
        elif kind == "input_audio_buffer.committed":
            self._turn(event["item_id"]).committed += 1
        elif kind == "input_audio_buffer.speech_started":
            self._turn(event["item_id"]).starts.append(event["audio_start_ms"])
        elif kind == "input_audio_buffer.speech_stopped":
            self._turn(event["item_id"]).stops.append(event["audio_end_ms"])
        elif kind.startswith("conversation.item.input_audio_transcription."):
            self._note_words(self._turn(event["item_id"]), kind.rpartition(".")[2], event)

    def _note_words(self, turn: Heard, kind: str, event: Event) -> None:
        if kind == "delta":
            turn.pieces.append(event["delta"])
        elif kind == "completed":
            turn.finals.append(event["transcript"])
        elif kind == "failed":
            turn.finals.append("")
            turn.error = f"{event['error'].get('code')}: {event['error'].get('message')}"

    def _turn(self, item: str) -> Heard:
        return self._noted.turns.setdefault(item, Heard(item, self._clock()))
