"""A recording transcribed through a Realtime transcription session, shown while it happens. See `penstock transcribe`.

The session is told where the recording ends by a commit: what is committed there is transcribed after all before it, so
when that is final, everything is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from apps.unstoppable import in_thread
from apps.voice.audio import Recording, UnreadableAudio
from apps.voice.client import BYTES_PER_SAMPLE, PIECE, Call
from apps.voice.transcript import Event, Transcript, Utterance
from pipeline.errors import PenstockError
from pipeline.voice import RATE

LARGE_PIECE = RATE // 2
"""Samples that are sent at once where all of them are there, and it shall go fast."""
AHEAD_S = 30.0
"""Seconds of sound that are sent beyond what is known to have been heard."""
QUIET_S = 1.0
"""When nothing is told for so long, what was sent is taken for silence."""
FENCE = "the_end"
EMPTY = "input_audio_buffer_commit_empty"
PATIENCE_S = 60.0

Sent = Callable[[float], None]
"""Hears how many seconds have been sent."""


class NotTranscribed(PenstockError):
    """The gateway could not do it; the message is its own."""


def session_of(language: str = "") -> dict[str, Any]:
    """The configuration of a transcription session; without a `language` it is found out."""
    told = {"model": "default"} | ({"language": language} if language else {})
    format_ = {"type": "audio/pcm", "rate": RATE}
    return {
        "type": "transcription",
        "audio": {"input": {"format": format_, "transcription": told, "turn_detection": {"type": "server_vad"}}},
    }


class Job:
    """One recording on its way through `call`."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._samples = 0
        self._ended = False
        self._fence: Utterance | None = None
        self._all_committed = False
        self._base, self._news = 0.0, asyncio.Event()
        self._damage: UnreadableAudio | None = None
        self.transcript = Transcript()

    async def run(
        self, recording: Recording, changed: Callable[[Utterance], None], sent: Sent, *, realtime: bool
    ) -> None:
        """Send it, and read until all of it is final; `changed` hears of each utterance that changes.

        Raises:
            NotTranscribed: the gateway refuses, or says nothing any more.
            CallLost: the connection is gone.
            UnreadableAudio: the recording is damaged; what came before is transcribed first.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send(recording, sent, realtime=realtime))
            while not self._complete:
                if utterance := self._take(await self._next()):
                    changed(utterance)
        if self._damage is not None:
            raise self._damage

    @property
    def _complete(self) -> bool:
        """What is committed at the end is transcribed after all before it."""
        if self._fence is not None:
            return self._fence.final
        return self._all_committed and not self.transcript.open

    async def _next(self) -> Event:
        """The next event. A long silence is none of the gateway's fault while something is still sent."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return (await self._call.next()).event
            except TimeoutError:
                if self._ended:
                    raise NotTranscribed(f"the gateway has said nothing for {PATIENCE_S:g} s") from None

    def _take(self, event: Event) -> Utterance | None:
        if event["type"] == "error":
            self._refused(event["error"])
        changed = self.transcript.take(event)
        if changed and self._ended and changed.by_hand:
            self._fence = changed
        self._base = max(self._base, self.transcript.heard_until)
        self._news.set()
        return changed

    def _refused(self, error: Event) -> None:
        if error.get("event_id") != FENCE or error.get("code") != EMPTY:
            raise NotTranscribed(f"the gateway refuses: {error['message']}")
        self._all_committed = True

    async def _send(self, recording: Recording, sent: Sent, *, realtime: bool) -> None:
        begun = time.perf_counter()
        try:
            live = realtime or recording.seconds is None
            async with aclosing(_pieces(recording, PIECE if live else LARGE_PIECE)) as pieces:
                async for piece in pieces:
                    self._samples += len(piece) // BYTES_PER_SAMPLE
                    if realtime:
                        await asyncio.sleep(begun + self._samples / RATE - time.perf_counter())
                    else:
                        await self._room()
                    await self._call.append(piece)
                    sent(self._samples / RATE)
        except UnreadableAudio as damage:
            self._damage = damage
        self.transcript.seconds = self._samples / RATE
        self._ended = True
        await self._call.send({"type": "input_audio_buffer.commit", "event_id": FENCE})

    async def _room(self) -> None:
        """Wait while too much is on its way: of what is silent nobody tells that it was heard."""
        while self._samples / RATE > self._base + AHEAD_S:
            self._news.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._news.wait()
            except TimeoutError:
                self._base += AHEAD_S


async def _pieces(recording: Recording, samples: int) -> AsyncGenerator[bytes, None]:
    """The pieces of a recording, decoded beside the event loop."""
    pieces = recording.pieces(samples)
    while (piece := await in_thread(next, pieces, None)) is not None:
        yield piece
