"""Clients that speak, one recording after the other, and what is recorded. Knows nothing of faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from apps.chaos.caller import Caller
from apps.chaos.line import Line, SessionLost
from apps.chaos.plan import Plan
from apps.chaos.record import Call, Record
from pipeline.voice import RATE

SENTENCES = 3
"""Sentences in a call."""
LEAD_S, REST_S = 0.5, 2.5
"""Seconds of silence before the first sentence, and after each."""
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
                await self._call(noted, recording)
            except SessionLost as lost:
                noted.error = str(lost)
            noted.ended = self._clock()
            self._told(noted)

    async def _call(self, noted: Call, recording: Recording) -> None:
        line = Line(self._urls, noted.caller, noted)
        caller = Caller(line, noted, self._clock, recording.sound, recording.turns)
        line.connected = caller.connected
        await caller.play()
