"""A session that hears and speaks, without socket or bus: what the stages would say is said by hand."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from apps.gateway.audio_settings import AudioSettings
from pipeline.messages import Turn
from pipeline.voice import RATE, SpeechStarted, SpeechStopped, Spoken, Transcribed, Transcript, Word
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import Desk

MS = RATE // 1000


def audio_settings(**changed: Any) -> AudioSettings:
    """Return settings of a gateway that hears and speaks."""
    return AudioSettings(**{"hears": True, "speaks": True, **changed})


def silence(ms: int, width: int = 2) -> bytes:
    """Return so much audio."""
    return bytes(ms * MS * width)


def sound(ms: int) -> str:
    """Return so much audio as a client sends it."""
    return b64encode(silence(ms)).decode()


class VoiceDesk(Desk):
    """A session to speak with."""

    def __init__(self, audio: dict[str, Any] | None = None, *, transcribe: bool = True, **changed: Any) -> None:
        super().__init__(audio=audio_settings(**audio or {}), **changed)
        if transcribe:
            self.listen(transcription={"model": "gpt-4o-mini-transcribe"})

    def listen(self, **how: Any) -> list[Event]:
        """Change how the session listens."""
        return self.send("session.update", session={"type": "realtime", "audio": {"input": how}})

    def hear(self, ms: int = 1000) -> list[Event]:
        """Receive so much audio."""
        return self.send("input_audio_buffer.append", audio=sound(ms))

    @property
    def stream(self) -> str:
        """Return the stream that the audio is in."""
        return self.sounds[-1].turn

    def started(self, item: str, at_ms: int) -> list[Event]:
        """The user begins to speak."""
        return self.read(SpeechStarted("sess_1", self.stream, item, at_ms * MS))

    def stopped(self, item: str, at_ms: int) -> list[Event]:
        """The user has spoken."""
        return self.read(SpeechStopped("sess_1", self.stream, item, at_ms * MS))

    def partial(self, item: str, at: int, text: str, end_ms: int = 0) -> list[Event]:
        """Words come before the end of a turn."""
        words = (Word(text, 0, end_ms * MS),) if end_ms else ()
        return self.read(Transcript("sess_1", self.stream, item, at, text, words))

    def transcribed(self, item: str, text: str, **more: Any) -> list[Event]:
        """What was said is known."""
        return self.read(Transcribed("sess_1", self.stream, item, text, **{"samples": RATE, **more}))

    def utter(self, item: str, text: str, at_ms: int = 0) -> list[Event]:
        """Say something, as the speech stage finds it."""
        self.hear()
        shown = self.started(item, at_ms) + self.stopped(item, at_ms + 800)
        return shown + self.transcribed(item, text)

    def spoken(self, turn: Turn, at_ms: int, ms: int, *marks: tuple[int, int], **more: Any) -> list[Event]:
        """Audio of an answer comes; `marks` are in characters and milliseconds."""
        at_marks = tuple((chars, end * MS) for chars, end in marks)
        return self.read(Spoken(turn.session, turn.turn, at_ms * MS, silence(ms), at_marks, **more))

    def spoken_data(self, turn: Turn, at_ms: int, data: bytes) -> list[Event]:
        """Audio of an answer comes, these bytes."""
        return self.read(Spoken(turn.session, turn.turn, at_ms * MS, data))

    def speak(self, turn: Turn, text: str = "yes", ms: int = 300) -> Event:
        """The whole answer is spoken; returns the response."""
        self.delta(turn, 0, text)
        self.finish(turn, length=len(text))
        marks = [(end, ms * end // len(text)) for end in range(1, len(text) + 1) if text[end : end + 1] in ("", " ")]
        shown = self.spoken(turn, 0, ms, *marks, last=True)
        return next(event["response"] for event in shown if event["type"] == "response.done")
