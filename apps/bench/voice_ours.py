"""Our side of the voice bench: sessions at the real gateway, each with a microphone in real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from apps.bench.voice_clips import Clip
from apps.bench.voice_score import Heard, Shown
from apps.voice.client import TRANSCRIPTION, Arrived, Call, Microphone, Said, call
from apps.voice.transcribe import session_of
from apps.voice.transcript import Event, Transcript
from pipeline.errors import PenstockError
from pipeline.voice import RATE

SILENCE_MS = 500
"""After so much silence a turn ends."""
PATIENCE_S = 5.0
"""When so long after the end of a clip not all of it has become final, that is given up, and counts as so late."""
PIECE = RATE // 50
"""Samples in an append: 20 ms, as browsers send them."""
GAP_S = 0.3
"""Silence after a clip's last transcript before the next one is said."""


class NotHeard(PenstockError):
    """The gateway refuses, so there is nothing to measure."""


class Session:
    """A transcription session and its microphone; one clip after the other.

    `lost`: a clip was given up. What comes late of it would be taken for the next one's, so that is for a new session.
    """

    lost = False

    def __init__(self, line: Call, microphone: Microphone, silence_ms: int | None) -> None:
        self._line, self._microphone = line, microphone
        self._silence_ms = silence_ms

    async def hear(self, clip: Clip) -> Heard:
        """Say `clip`, and see what is heard of it.

        Raises:
            NotHeard: the gateway refuses something.
        """
        said = self._microphone.say(clip.sound)
        begun, transcript = self._microphone.when(said.start), Transcript()
        shown: list[Shown] = []
        final, self.lost = clip.seconds + PATIENCE_S, True
        committing = asyncio.create_task(self._commit(said)) if self._silence_ms is None else None
        while (arrived := await self._next(begun + clip.seconds + PATIENCE_S)) is not None:
            transcript.take(_checked(arrived.event))
            shown.append(Shown(arrived.at - begun, transcript.text))
            if not transcript.open and any(one.final for one in transcript):
                final = arrived.at - begun
                if self._covered(transcript, said.start / RATE + clip.speech_ends):
                    self.lost = False
                    break
        if committing is not None:
            await committing
        await asyncio.sleep(GAP_S)
        return Heard(tuple(shown), transcript.text, final)

    def _covered(self, transcript: Transcript, ends: float) -> bool:
        """Whether the last turn went on to the end of the speech, at `ends` seconds."""
        last = [*transcript][-1]
        return last.by_hand or (last.end is not None and last.end >= ends)

    async def _next(self, until: float) -> Arrived | None:
        try:
            async with asyncio.timeout(max(0.0, until - self._microphone.now)):
                return await self._line.next()
        except TimeoutError:
            return None

    async def _commit(self, said: Said) -> None:
        """End the turn by hand, when all has been said."""
        await self._microphone.through(said)
        await self._line.send({"type": "input_audio_buffer.commit"})


def _checked(event: Event) -> Event:
    if event["type"] == "error":
        raise NotHeard(f"the gateway refuses: {event['error']['message']}")
    return event


@asynccontextmanager
async def session(url: str, *, silence_ms: int | None = SILENCE_MS) -> AsyncGenerator[Session, None]:
    """A transcription session at `url` meanwhile; without `silence_ms` its turns are ended by hand."""
    microphone = Microphone(piece=PIECE)
    async with call(url, configured(session_of("en"), silence_ms), intent=TRANSCRIPTION) as line:
        speaking = asyncio.create_task(microphone.run(line))
        try:
            yield Session(line, microphone, silence_ms)
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])


def configured(session: dict[str, Any], silence_ms: int | None) -> dict[str, Any]:
    """`session` with turns that end after so much silence, or by hand."""
    detection = None if silence_ms is None else {"type": "server_vad", "silence_duration_ms": silence_ms}
    session["audio"]["input"]["turn_detection"] = detection
    return session


async def all_heard(url: str, clips: list[Clip], sessions: int, step: Callable[[], None]) -> list[tuple[Clip, Heard]]:
    """What is heard of `clips` by so many sessions at once, which begin one after another within a clip's length."""
    waiting = iter(clips)
    found: list[tuple[Clip, Heard]] = []

    async def all_of(mine: Session) -> None:
        for clip in waiting:
            found.append((clip, await mine.hear(clip)))
            step()
            if mine.lost:
                break

    async def one(number: int) -> None:
        await asyncio.sleep(number / sessions * clips[0].seconds)
        while len(found) < len(clips):
            async with session(url) as mine:
                await all_of(mine)
            if not mine.lost:
                return

    async with asyncio.TaskGroup() as tasks:
        for number in range(sessions):
            tasks.create_task(one(number))
    return found
