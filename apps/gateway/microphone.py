"""What a session's client sends of audio, on its way to the speech stage: decoded, cut into pieces, and paced.

Only the live owner of a session has one. Positions are samples at 24 kHz from the session's start. Sans-I/O.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from apps.gateway.items import new_id
from apps.gateway.limits import Bucket
from apps.gateway.outgoing import Outgoing
from apps.gateway.refusal import LIMITED, Refusal
from apps.gateway.speaking import MS, samples
from apps.gateway.streams import BEHIND_S, LONGEST, SHORTEST, STREAM, aside, decoded, pieces
from apps.gateway.terms import Terms
from pipeline.headers import REPLY_TO, TENANT, TRACE, TURN
from pipeline.messages import Encoding
from pipeline.telemetry import new_traceparent
from pipeline.topics import AUDIO
from pipeline.voice import RATE, Listening, Sound

LEAST_S = 0.01
"""What a piece counts at least against the client's rate."""
NOTED_EVERY = 2 * RATE
"""Samples after which the log is told how far the audio in it has come."""

Then = Literal["", "commit", "clear", "end"]


class Microphone:
    """The audio of session `session`; `post` hands a record over, and `how` says how to listen.

    `commit` tells the client that what came is an item, and returns its id, where the client itself does not end a turn
    in time.

    All audio is one stream, until none has come for a while. `position` is where it ends, `begins` where that begins
    which is no turn yet.
    """

    def __init__(
        self,
        session: str,
        terms: Terms,
        how: Callable[[], Listening],
        post: Callable[[Outgoing], None],
        commit: Callable[[], str],
    ) -> None:
        self._session, self._terms, self._how, self._post, self._commit = session, terms, how, post, commit
        self._settings = terms.settings.audio
        self._rate = Bucket(self._settings.speed, self._settings.ahead_s, time.monotonic())
        self._waiting: deque[Sound] = deque()
        self._ready_at = self._heard_at = 0.0
        self._deaf_until = 0.0
        self._odd: tuple[Encoding, bytes] = ("pcm16", b"")
        self._noted, self._fresh = 0, False
        self._handed = 0
        self._trace = ""
        self.stream = ""
        self.position = self.begins = 0

    # -- what the client sends

    def append(self, audio: str, now: float) -> None:
        """Take a piece of audio, in base64.

        Raises:
            Refusal: it is none, or too much.
        """
        how = self._how()
        self._check_pace(now)
        self._take(self._whole(decoded(audio, self._settings.max_append_bytes, "audio"), how.encoding), how, now)

    def _whole(self, data: bytes, encoding: Encoding) -> bytes:
        """`data` behind the half sample that was left before; half a sample at its end is left for the next."""
        before, half = self._odd
        data = half + data if before == encoding else data
        whole = len(data) - len(data) % (2 if encoding == "pcm16" else 1)
        self._odd = encoding, data[whole:]
        return data[:whole]

    def _take(self, data: bytes, how: Listening, now: float) -> None:
        self._heard_at = now
        for piece in pieces(data):
            if now >= self._deaf_until:
                self._begin()
                self._waiting.append(Sound(self._session, self.stream, self.position, piece, how))
            self.position += samples(piece, how.encoding)
            if self.stream and how.detection is None and self.position - self.begins >= LONGEST:
                self._waiting.append(self._sound(how, "commit", self._commit()))
                self.begins = self.position
        self.release(now)

    def check_turn(self) -> None:
        """See that what came since the last turn can be one.

        Raises:
            Refusal: next to nothing came.
        """
        if (length := self.position - self.begins) < SHORTEST:
            why = (
                f"Error committing input audio buffer: buffer too small. Expected at least {SHORTEST * 1000 // RATE}ms "
                f"of audio, but buffer only has {length * 1000 / RATE:.2f}ms of audio."
            )
            raise Refusal("input_audio_buffer_commit_empty", why)

    def commit(self, item: str) -> None:
        """What came since the last turn is one, and will be `item`."""
        self._begin()
        self._say("commit", item)

    def clear(self) -> None:
        """Forget what came since the last turn."""
        if self.stream:
            self._say("clear")
        self._forget()

    def decoded(self, audio: str, where: str) -> bytes:
        """Audio that is not the session's own, and is there as a whole; `where` it stands.

        Raises:
            Refusal: it is none, or too much, or too little.
        """
        encoding = self._how().encoding
        self._check_pace(time.monotonic())
        data = decoded(audio, self._settings.max_append_bytes, where)
        if encoding == "pcm16" and len(data) % 2:
            raise Refusal("invalid_value", f"{where} has half a sample: 16-bit PCM has 2 bytes each", param=where)
        if not SHORTEST <= samples(data, encoding) <= LONGEST:
            limits = f"{SHORTEST * 1000 // RATE} ms to {LONGEST // RATE} s"
            why = f"{where} is {samples(data, encoding) / RATE:.3f} s of audio in the session's format, not {limits}"
            raise Refusal("invalid_value", why, param=where)
        return data

    def transcribe(self, data: bytes, item: str) -> None:
        """Have audio that is not the session's own transcribed: what is said in `item`, in a stream of its own."""
        how = msgspec.structs.replace(self._how(), detection=None)
        stream, at = aside(item), 0
        for piece in pieces(data):
            self._waiting.append(Sound(self._session, stream, at, piece, how))
            at += samples(piece, how.encoding)
        self._waiting.append(Sound(self._session, stream, at, how=how, then="commit", item=item))
        self._waiting.append(Sound(self._session, stream, at, how=how, then="end"))
        self.release(time.monotonic())

    def ended(self, stream: str, position: int) -> None:
        """A turn was found that ends at `position`; in another gateway's stream, that shows how far this had come."""
        if stream == self.stream:
            self.begins = max(self.begins, min(position, self.position))
        elif not self.stream:
            self.position = self.begins = max(self.position, position)

    # -- the stream

    def resume(self, stream: str, position: int, begins: int) -> None:
        """Another had the session, whose `stream` stands in the log up to `position`: go on there, in the same stream.

        Nothing is to be done where the microphone itself was taken over.
        """
        if self.stream:
            return
        self.position = self._noted = self._handed = max(self.position, position)
        self.begins = min(begins, self.position)
        if stream:
            self.stream, self._heard_at = stream, time.monotonic()
            self._terms.metrics.voice.sessions.inc()

    def take_over(self, other: Microphone) -> None:
        """Go on where `other` stops, which had the session in this gateway: the same stream, and all that waits in it.

        The client is told whole milliseconds and sends on from there: what comes twice by that is heard once. Half a
        sample is forgotten. Without a stream there is nothing to go on with.
        """
        if not other.stream:
            return
        self.stream, self._trace = other.stream, other._trace
        self.position, self._noted, self._fresh = other.position // MS * MS, other._noted, other._fresh
        self.begins = min(other.begins, self.position)
        self._waiting, self._rate, self._ready_at = other._waiting, other._rate, other._ready_at
        self._heard_at, self._handed, self._deaf_until = other._heard_at, other._handed, other._deaf_until
        other.stream, other._waiting = "", deque()

    def end(self) -> None:
        """No more audio comes in this stream."""
        if self.stream:
            self._say("end")
            self._leave()

    def broke(self, stream: str, deaf_until: float) -> bool:
        """The stage has given a stream up; whether it was this one, in which case nothing goes there until then."""
        if not stream or stream != self.stream:
            return False
        self._waiting.clear()
        self._deaf_until = deaf_until
        self._leave()
        return True

    def let_go(self) -> None:
        """What comes further is another's."""
        self._waiting.clear()
        if self.stream:
            self._leave()

    def _leave(self) -> None:
        self.stream = ""
        self._forget()
        self._terms.metrics.voice.sessions.dec()

    def news(self) -> tuple[str, int] | None:
        """The stream, and how far it has come; None if the log knows well enough."""
        return self.noted() if self.stream and (self._fresh or self._noted < self.position) else None

    def noted(self) -> tuple[str, int]:
        """The same, which the log is told now."""
        self._noted, self._fresh = self.position, False
        return self.stream, self.position

    def progress(self) -> tuple[str, int] | None:
        """The stream, and how far that was handed over, if the log is to be told now; who waits has not been heard."""
        if not self.stream or not (self._fresh or self._handed - self._noted >= NOTED_EVERY):
            return None
        self._noted, self._fresh = self._handed, False
        return self.stream, self._handed

    def tick(self, now: float) -> None:
        """End a stream in which nothing comes any more; one whose turn the client has still to commit is kept."""
        self.release(now)
        if not self.stream or self._waiting or now - self._heard_at <= self._settings.idle_s / 2:
            return
        if self._how().detection is None and self.position > self.begins:
            self._heard_at, self._fresh = now, True  # the log is told when this was
            self._say("")
        elif now - self._heard_at > self._settings.idle_s:
            self.end()

    def _begin(self) -> None:
        if not self.stream:
            self.stream, self._fresh, self._handed = new_id(STREAM), True, self.position
            self._trace = self._terms.trace or new_traceparent()
            self._terms.metrics.voice.sessions.inc()

    def _forget(self) -> None:
        self.begins = self.position
        self._odd = "pcm16", b""

    def _say(self, then: Then, item: str = "") -> None:
        self._flush()
        self._post_now(self._sound(self._how(), then, item))
        if then == "commit":
            self._forget()

    def _sound(self, how: Listening, then: Then, item: str = "") -> Sound:
        """What comes after the audio so far."""
        return Sound(self._session, self.stream, self.position, how=how, then=then, item=item)

    # -- its pace

    def release(self, now: float) -> float:
        """Hand over what may go on; returns the seconds until more may, 0 if nothing waits."""
        while self._waiting and now >= self._ready_at:
            self._hand_over(self._waiting.popleft(), now)
        return max(0.0, self._ready_at - now) if self._waiting else 0.0

    def _check_pace(self, now: float) -> None:
        """Take no more while too much waits."""
        waiting = sum(samples(sound.data, sound.how.encoding) for sound in self._waiting) / RATE
        behind = max(0.0, self._ready_at - now) + waiting / self._settings.speed
        if behind > BEHIND_S:
            pace = f"{self._settings.speed:g} times as fast as it is heard"
            why = f"what was sent has gone on in {behind:.0f} s, {pace}; this was not taken, send it again later"
            raise Refusal("rate_limit_exceeded", why, kind=LIMITED, retry_after=behind - BEHIND_S)

    def _flush(self) -> None:
        """Hand over all that waits, for what comes now belongs behind it."""
        while self._waiting:
            self._hand_over(self._waiting.popleft(), time.monotonic())

    def _hand_over(self, sound: Sound, now: float) -> None:
        seconds = samples(sound.data, sound.how.encoding) / RATE
        self._terms.metrics.voice.audio.inc(seconds)
        self._heard_at = now
        if sound.turn == self.stream:
            self._handed = sound.at + samples(sound.data, sound.how.encoding)
        cost = max(LEAST_S, seconds)
        self._ready_at = now + max(self._rate.spend(cost, now), self._terms.audio(cost))
        self._post_now(sound)

    def _post_now(self, sound: Sound) -> None:
        self._post(Outgoing(AUDIO, sound, self._session, headers=self._headers(sound.turn)))

    def _headers(self, stream: str) -> Mapping[str, str]:
        terms = self._terms
        trace = self._trace or terms.trace or new_traceparent()
        return {REPLY_TO: str(terms.partition), TURN: stream, TENANT: terms.tenant, TRACE: trace}
