"""A spoken exchange without a browser: sound files are the microphone, the reply is what comes back.

Knows the events of the protocol and when they came, and nothing of terminals. A reply is heard as a loudspeaker would
play it: from its first sound on, without gaps where it came early enough, until it ends or is interrupted.
"""

from __future__ import annotations

import asyncio
import base64
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apps.voice.client import BYTES_PER_SAMPLE, Call, Microphone, Said
from apps.voice.transcript import Event, Transcript
from pipeline.errors import PenstockError
from pipeline.voice import RATE

MS = 1000
QUIET = 0.02
"""Of a recording's loudest sample: what is softer is no speech."""
SLACK_S = 0.5
"""By so much the end of a turn may be told too early."""
SETTLED_S = 0.3
"""When the speaker says nothing, and nothing is under way, for so long, the exchange is over."""


class NothingHeard(PenstockError):
    """What was said was no speech to the gateway."""


class ExchangeFailed(PenstockError):
    """The gateway refuses, or says nothing any more."""


@dataclass
class Reply:
    """One response. Times are of `time.perf_counter`, `asked` is the end of the speech that it answers, if it was any.

    `sound` is PCM16 at 24 kHz, all that came; `heard` is how many samples of it were played.
    """

    id: str
    asked: float | None = None
    final: float | None = None
    token: float | None = None
    audio: float | None = None
    silenced: float | None = None
    ended: float | None = None
    text: str = ""
    sound: bytearray = field(default_factory=bytearray)
    item: str = ""
    status: str = ""
    why: str = ""
    played_until: float = 0.0
    cut: int | None = None

    @property
    def samples(self) -> int:
        """How much sound has come."""
        return len(self.sound) // BYTES_PER_SAMPLE

    def heard_at(self, now: float) -> int:
        """How many samples have been played by `now`."""
        if self.cut is not None:
            return self.cut
        return max(0, self.samples - round(max(0.0, self.played_until - now) * RATE))

    def over(self, now: float) -> bool:
        """Whether all of it has come, and been played."""
        return bool(self.status) and self.played_until <= now

    def latencies(self) -> dict[str, float]:
        """Seconds from the end of the speech to each step, as far as they were reached."""
        steps = {"final": self.final, "first token": self.token, "first audio": self.audio}
        if self.asked is None:
            return {}
        return {name: at - self.asked for name, at in steps.items() if at is not None}


class Exchange:
    """A conversation over `call`, whose events `run` reads. `told` hears of each event once it has been taken in."""

    def __init__(self, call: Call, microphone: Microphone, told: Callable[[Event], None]) -> None:
        self._call, self.microphone = call, microphone
        self._told = told
        self._changed = asyncio.Event()
        self._loud: list[int] = []
        self._finals: dict[str, float] = {}
        self._stopped = 0.0
        self.last_heard = time.perf_counter()
        self.transcript = Transcript()
        self.replies: list[Reply] = []
        self.interrupted: list[float] = []
        """When the gateway told that the speaker has begun while a reply was played."""

    @property
    def reply(self) -> Reply | None:
        """The latest reply."""
        return self.replies[-1] if self.replies else None

    @property
    def busy(self) -> bool:
        """Whether something is under way: an utterance without its text, or a reply that has not ended."""
        return bool(self.transcript.open) or any(not one.status for one in self.replies)

    def say(self, sound: bytes) -> Said:
        """Speak `sound`."""
        said = self.microphone.say(sound)
        self._loud.append(said.start + last_loud(sound))
        return said

    async def run(self) -> None:
        """Read for ever.

        Raises:
            ExchangeFailed: the gateway refuses something.
            CallLost: the connection is gone.
        """
        while True:
            at, event = await self._call.next()
            await self._take(at, event)
            self._told(event)
            self._changed.set()

    async def until(self, reached: Callable[[], bool], patience_s: float) -> bool:
        """Wait until that is so; whether it is, after `patience_s` seconds at most."""
        deadline = time.perf_counter() + patience_s
        while not reached():
            self._changed.clear()
            left = deadline - time.perf_counter()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(min(left, 0.1)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return True

    async def _take(self, at: float, event: Event) -> None:
        self.last_heard = at
        kind = event["type"]
        if utterance := self.transcript.take(event):
            if utterance.final:
                self._finals[utterance.item] = at
            if kind == "input_audio_buffer.speech_started":
                await self._interrupted(at)
        elif kind == "error":
            raise ExchangeFailed(f"the gateway refuses: {event['error']['message']}")
        elif kind.startswith("response."):
            self._answered(kind.removeprefix("response."), at, event)

    async def _interrupted(self, at: float) -> None:
        """The speaker speaks: what is still to be played is not."""
        reply = self.reply
        if reply is None or reply.cut is not None or reply.over(at):
            return
        reply.cut, reply.silenced = reply.heard_at(at), at
        self.interrupted.append(at)
        if reply.item:
            heard_ms = reply.cut * MS // RATE
            await self._call.send(
                {
                    "type": "conversation.item.truncate",
                    "item_id": reply.item,
                    "content_index": 0,
                    "audio_end_ms": heard_ms,
                }
            )

    def _answered(self, kind: str, at: float, event: Event) -> None:
        if kind == "created":
            self.replies.append(self._begun(event["response"]["id"]))
            return
        about = event.get("response_id") or event["response"]["id"]
        reply = next((one for one in self.replies if one.id == about), None)
        if reply is None:
            return
        if kind in ("output_audio_transcript.delta", "output_text.delta"):
            reply.token = reply.token or at
            reply.text += event["delta"]
        elif kind == "output_audio.delta":
            self._sounds(reply, at, event)
        elif kind == "done":
            reply.status, reply.why, reply.ended = event["response"]["status"], _why(event["response"]), at

    def _begun(self, name: str) -> Reply:
        """A new reply: it answers the last speech, if that has been answered by none yet."""
        spoken = [one for one in self.transcript if one.final and one.text.strip()]
        if not spoken or spoken[-1].item not in self._finals:
            return Reply(name)
        final = self._finals.pop(spoken[-1].item)
        return Reply(name, asked=self._end_of_speech(spoken[-1].end), final=final)

    def _end_of_speech(self, stopped: float | None) -> float | None:
        """When the last loud sample before `stopped` seconds of audio was heard."""
        before = [sample for sample in self._loud if stopped is None or sample <= (stopped + SLACK_S) * RATE]
        return self.microphone.when(max(before)) if before else None

    def _sounds(self, reply: Reply, at: float, event: Event) -> None:
        sound = base64.b64decode(event["delta"])
        reply.audio = reply.audio or at
        reply.item = event["item_id"]
        reply.sound += sound
        reply.played_until = max(reply.played_until, at) + len(sound) / BYTES_PER_SAMPLE / RATE


def _why(response: Event) -> str:
    details = response.get("status_details") or {}
    return (details.get("error") or {}).get("message") or details.get("reason") or ""


def last_loud(sound: bytes) -> int:
    """The sample after the last one that is loud: where the speech in `sound` ends."""
    samples, least = _samples(sound)
    return next((at for at in range(len(samples), 0, -1) if abs(samples[at - 1]) > least), 0)


def first_loud(sound: bytes) -> int:
    """The first sample that is loud: where the speech in `sound` begins."""
    samples, least = _samples(sound)
    return next((at for at, sample in enumerate(samples) if abs(sample) > least), 0)


def _samples(sound: bytes) -> tuple[array[int], float]:
    """The samples of `sound`, and what is quiet among them."""
    samples = array("h", sound[: len(sound) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE])
    return samples, QUIET * max((abs(sample) for sample in samples), default=0)


def session_of(language: str = "", **more: Any) -> dict[str, Any]:
    """The configuration of a session that is spoken to and speaks."""
    told = {"model": "default"} | ({"language": language} if language else {})
    pcm = {"type": "audio/pcm", "rate": RATE}
    heard = {"format": pcm, "transcription": told, "turn_detection": {"type": "server_vad", **more}}
    return {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {"input": heard, "output": {"format": pcm}},
    }
