"""The audio of a session, as its live owner deals with it: what comes in, what of it is a turn, and long silences."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from apps.gateway import commands as c
from apps.gateway import events
from apps.gateway.account import Account
from apps.gateway.config import SessionConfig
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.items import heard, is_sound, new_id
from apps.gateway.microphone import Microphone
from apps.gateway.protocols.realtime import error_event
from apps.gateway.refusal import LIMITED, SERVER, Refusal
from apps.gateway.saying import Saying
from apps.gateway.speaking import MS
from apps.gateway.streams import aside
from apps.gateway.terms import Terms
from apps.gateway.turns import Turns
from apps.gateway.voices import idle_timeout_ms, listening
from apps.gateway.waiting import WANTED
from pipeline.messages import Finished, Message, Problem
from pipeline.voice import RATE, SpeechStarted, SpeechStopped, Transcribed, Transcript

NOBODY_HEARS = "there is no speech stage here (gateway.audio.hears); send text"
LOST = Problem("log_unavailable", "a piece of audio did not reach the log", retry_after=1.0)
LATE = Problem("transcription_timeout", "the transcript was not there in time")


class Voicing:
    """Carries out what a client asks of its audio, and what nobody asks for: the end of waiting, and of silence."""

    def __init__(
        self, session: str, terms: Terms, config: SessionConfig, talk: Talk, turns: Turns, account: Account, say: Saying
    ) -> None:
        self._session, self._terms, self._config = session, terms, config
        self._talk, self._turns, self._account, self._say = talk, turns, account, say
        self.microphone = Microphone(session, terms, lambda: listening(config.view), say.post, self._committed)
        self._silent_since: int | None = None

    # -- what the client asks

    def carry_out(self, command: c.AudioCommand) -> None:
        """Do what the client asks.

        Raises:
            Refusal: it cannot be done.
        """
        if not self._terms.settings.audio.hears:
            kind = str(command.__struct_config__.tag)
            raise Refusal("audio_not_supported", f"{kind}: {NOBODY_HEARS}", param="type")
        if isinstance(command, c.OutputAudioClear):
            why = "output_audio_buffer.clear is for WebRTC; over a WebSocket the client itself has what is to be played"
            raise Refusal("invalid_value", why, param="type")
        if isinstance(command, c.AudioAppend):
            self.microphone.append(command.audio, time.monotonic())
            self._note()
        elif isinstance(command, c.AudioCommit):
            self._commit()
        else:
            self.microphone.clear()
            self._say.tell({"type": "input_audio_buffer.cleared"}, audio=self.microphone.news())

    def _note(self) -> None:
        """Tell the log how far the audio in it has come, from time to time."""
        if (progress := self.microphone.progress()) is not None:
            self._say.tell(audio=progress)

    def _commit(self) -> None:
        self.microphone.check_turn()
        self.microphone.commit(self._committed())

    def _committed(self) -> str:
        """Tell that what was heard is an item; what the speech stage is to call it."""
        item = heard(new_id("item"))
        begun = (name for name in self._account.ears.begun if name not in self._talk.draft)
        shown = next(begun, item.id)  # what has begun, unless that has ended by itself when this is read
        previous = self._talk.draft.insert(heard(shown), after=None)
        gone = map(events.deleted, self._talk.draft.bound(keep=shown))
        self._say.tell(*events.committed(item.view, previous), *gone, audio=self.microphone.news())
        return item.id

    def sound_of(self, item: c.NewItem) -> bytes | None:
        """The audio that an item brings with it, if it does and somebody can hear it.

        Raises:
            Refusal: it is none.
        """
        if not (self._terms.settings.audio.hears and isinstance(item, c.SaidItem) and item.role == "user"):
            return None
        found = ((part.audio, f"item.content[{n}].audio") for n, part in enumerate(item.content) if is_sound(part))
        audio, where = next(found, (None, ""))
        return None if audio is None else self.microphone.decoded(audio, where)

    def check_transcription(self, *, empty: bool) -> None:
        """See that the session can become one that only transcribes, which only an `empty` one can.

        Raises:
            Refusal: it cannot.
        """
        if not self._terms.settings.audio.hears:
            raise Refusal("audio_not_supported", NOBODY_HEARS, param="session.type")
        if not empty:
            why = "a session in which something was said cannot become one that only transcribes; open another one"
            raise Refusal("invalid_value", why, param="session.type")

    # -- what the log says

    def read(self, message: Message, made: list[Event]) -> None:
        """Do what follows from what was read, of which the client is told `made`."""
        microphone = self.microphone
        match message:
            case SpeechStarted():
                self._silent_since = None
            case SpeechStopped():
                microphone.ended(message.turn, message.at)
            case Transcript() if made and message.words and message.turn == microphone.stream:
                lag = (microphone.position - message.words[-1].end) / RATE
                self._terms.metrics.voice.partial_lag.observe(max(0.0, lag))
            case Finished():
                self._broke(message)

    def _broke(self, finished: Finished) -> None:
        """The speech stage has given a stream up: the client hears why, and the next audio begins a new one."""
        problem = finished.problem or Problem("server_error", "the audio could not be listened to")
        if self.microphone.broke(finished.turn, time.monotonic() + (problem.retry_after or 1.0)):
            kind = LIMITED if problem.retry_after is not None else SERVER
            refusal = Refusal(problem.code, problem.message, kind=kind, retry_after=problem.retry_after)
            self._terms.metrics.errors.labels(refusal.code).inc()
            self._say.tell(error_event(refusal), audio=("", self.microphone.position))

    # -- time

    def resume(self) -> None:
        """The session was another gateway's, and is ours now."""
        ears = self._account.ears
        ears.metrics = self._terms.metrics.voice
        self.microphone.resume(ears.stream, ears.position, ears.begins)

    def tick(self, now: float) -> None:
        """Give up waiting for what is too late, end what has fallen silent, and answer a long silence."""
        with self._telling_end():
            self.microphone.tick(now)
        self._note()
        for turn in self._account.ears.overdue(now - self._terms.settings.audio.transcript_timeout_s):
            self._say.log(Transcribed(self._session, turn.stream, turn.name, "", problem=LATE))
        if (since := self._silence(now)) is not None:
            self._time_out(since)

    def flow(self, now: float) -> float:
        """Let audio that waits go on; returns the seconds until more of it may, 0 if none waits."""
        wait = self.microphone.release(now)
        self._note()
        return wait

    def left(self) -> None:
        """The client's connection has ended: whoever has the session next counts on from the last of its audio."""
        if self.microphone.news() is not None:
            self._say.tell(audio=self.microphone.noted())

    def end(self) -> None:
        """No audio comes any more."""
        with self._telling_end():
            self.microphone.end()

    @contextmanager
    def _telling_end(self) -> Generator[None, None, None]:
        """Tell the log if the stream ends meanwhile: nobody is to go on with it."""
        stream = self.microphone.stream
        yield
        if stream and not self.microphone.stream:
            self._say.tell(audio=("", self.microphone.position))

    def let_go(self) -> None:
        """The session is another gateway's now, which ends the stream."""
        self.microphone.let_go()

    def undelivered(self, stream: str) -> bool:
        """A piece of audio did not reach the log; whether its client may send it again, once it comes back.

        It is told then how much is there. Audio that came with an item is lost.
        """
        if stream != self.microphone.stream:
            if stream.startswith(aside("")):
                self._say.log(Finished(self._session, stream, status="failed", problem=LOST))
            return False
        self.microphone.let_go()
        return True

    def _silence(self, now: float) -> int | None:
        """Since when nobody has said anything, if that is long enough to be answered; by the audio's own time."""
        ears, since = self._account.ears, self._turns.quiet_from
        limit = idle_timeout_ms(ears.view)
        waits = len(self._turns) or ears.speaking or ears.pending or ears.waiting.wanted
        if limit is None or since is None or waits or now < since:
            self._silent_since = None
            return None
        if self._silent_since is None:
            self._silent_since = self.microphone.position
        silent = self.microphone.position - self._silent_since
        return self._silent_since if silent >= limit * MS else None

    def _time_out(self, since: int) -> None:
        """Answer a silence, which is an item, too."""
        self._silent_since, self._turns.quiet_from = None, None
        item, until = heard(new_id("item"), ""), self.microphone.position
        previous = self._talk.draft.insert(item, after=None)
        gone = map(events.deleted, self._talk.draft.bound(keep=item.id))
        times = {"audio_start_ms": since // MS, "audio_end_ms": until // MS}
        triggered = events.heard("timeout_triggered", item.id, **times)
        self._say.tell(triggered, *events.committed(item.view, previous), *gone, wanted={**WANTED})
        self.microphone.ended(self.microphone.stream, until)
