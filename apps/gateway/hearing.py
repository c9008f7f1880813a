"""What the speech stage says of a session's audio, as the client is told of it, and what is to be done for it.

Changes only by what is read, in the log's order. Positions are samples at 24 kHz from the session's start. Sans-I/O.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from apps.gateway import events
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.items import blank, heard, restored, spoken_part, transcribed, untranscribed
from apps.gateway.metrics import VoiceMetrics
from apps.gateway.speaking import MS
from apps.gateway.streams import aside
from apps.gateway.voices import transcribes
from pipeline.messages import Finished, Message, Problem, Told
from pipeline.voice import SpeechStarted, SpeechStopped, Transcribed, Transcript

MOST_TURNS = 64
"""Turns whose transcript is awaited; of more, the oldest are forgotten."""
MOST_OVER = 64
"""Turns that are remembered to be over."""
MOST_EARLY = 8
"""Transcripts that may come before the item that they belong to."""

WANTED: Mapping[str, Any] = {"type": "response.create"}
"""The response that a turn of speech asks for."""
SILENT = Problem("transcription_failed", "the stream of audio has ended before its transcript was there")


class Heard(msgspec.Struct, omit_defaults=True):
    """A turn of speech on its way: found by its sound (`auto`), or what the client has committed.

    `ended` says that it is an item of the conversation, of which `chars` of the transcript were told so far. `left`
    says that the client has committed or forgotten what it has begun with: it is one only if it had ended before that.
    """

    item: str
    stream: str = ""
    auto: bool = False
    ended: bool = False
    chars: int = 0
    left: bool = False


class Hearing(msgspec.Struct, omit_defaults=True):
    """All that is known of what is heard, for a snapshot.

    `stream` is the stream that the audio is in, and `position` how far the audio has come at least. `wanted` is a
    response that waits until it can begin. `heard_to` is where the last turn that was found ended, in which stream.
    """

    stream: str = ""
    position: int = 0
    turns: dict[str, Heard] = {}
    over: tuple[str, ...] = ()
    early: dict[str, Transcribed] = {}
    wanted: dict[str, Any] | None = None
    heard_to: tuple[str, int] = ("", 0)


class Ears:
    """Reads what is said of a session's audio into `talk`.

    `view` is how the session is configured. What only its live owner does goes by `metrics`, which it alone has, and
    `ended_at`: when a turn of speech ended, in seconds of the gateway's clock.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.view: Mapping[str, Any] = {}
        self.stream, self.position = "", 0
        self.wanted: dict[str, Any] | None = None
        self.metrics: VoiceMetrics | None = None
        self.ended_at: dict[str, float] = {}
        self.last_ended_at: float | None = None
        self._turns: OrderedDict[str, Heard] = OrderedDict()
        self._over: deque[str] = deque(maxlen=MOST_OVER)
        self._early: OrderedDict[str, Transcribed] = OrderedDict()
        self._heard_to = ("", 0)

    # -- snapshots

    def state(self) -> Hearing | None:
        """All that is known, for a snapshot; None: nothing was ever heard."""
        if not (self.stream or self._turns or self._over or self.wanted):
            return None
        kept = dict(self._turns), tuple(self._over), dict(self._early), self.wanted
        return Hearing(self.stream, self.position, *kept, self._heard_to)

    def restore(self, state: Hearing) -> None:
        """Go on from a snapshot."""
        self.stream, self.position, self.wanted = state.stream, state.position, state.wanted
        self._turns.update(state.turns)
        self._over.extend(state.over)
        self._early.update(state.early)
        self._heard_to = state.heard_to

    # -- what there is

    @property
    def speaking(self) -> bool:
        """Whether the user speaks."""
        return bool(self.begun)

    @property
    def pending(self) -> tuple[Heard, ...]:
        """What was said, and is not transcribed yet."""
        return tuple(turn for turn in self._turns.values() if turn.ended)

    @property
    def begun(self) -> tuple[str, ...]:
        """The items that what is being said will be."""
        return tuple(turn.item for turn in self._turns.values() if not turn.ended and not turn.left)

    def overdue(self, since: float) -> Iterator[Heard]:
        """Those that have waited for it since then or longer."""
        return (turn for turn in self.pending if self.ended_at.setdefault(turn.item, time.monotonic()) < since)

    @property
    def _detection(self) -> Mapping[str, Any]:
        return self.view["audio"]["input"]["turn_detection"] or {}

    @property
    def interrupts(self) -> bool:
        """Whether an answer ends where the user begins to speak."""
        return bool(self._detection.get("interrupt_response"))

    @property
    def answers(self) -> bool:
        """Whether each turn of speech is answered."""
        return self.view["type"] == "realtime" and bool(self._detection.get("create_response"))

    @property
    def idle_timeout_ms(self) -> int | None:
        """The silence after an answer that is answered; None: none is."""
        return self._detection.get("idle_timeout_ms") if self.view["type"] == "realtime" else None

    # -- what the gateway tells

    def told(self, told: Told) -> list[Event]:
        """Take over what a client is told of its audio; returns what that makes of a transcript that came early."""
        if told.audio is not None:
            self.stream, at = told.audio
            self.position = max(self.position, at)
        if told.served:
            self.wanted = None
        self.wanted = told.wanted or self.wanted
        made: list[Event] = []
        stream = ""
        for event in told.events:
            kind = event["type"]
            if kind in ("input_audio_buffer.committed", "input_audio_buffer.cleared"):
                self._leave_begun()
                stream = self.stream
            elif kind == "conversation.item.done" and untranscribed(restored(event["item"])):
                item = event["item"]["id"]
                self._await(Heard(item, stream or aside(item), ended=True))
                made += self._transcribed(self._early.pop(item)) if item in self._early else []
        return made

    def _leave_begun(self) -> None:
        """What has begun is committed or forgotten, unless the stage says that it had ended before."""
        for item in self.begun:
            self._turns[item] = msgspec.structs.replace(self._turns[item], left=True)

    def _end_left(self) -> None:
        """All that ended before a commit has been told before what was committed is transcribed."""
        for item in [turn.item for turn in self._turns.values() if turn.left]:
            self._end(item)

    # -- what the speech stage says

    def read(self, message: Message) -> list[Event]:
        """The events that what the speech stage says makes."""
        match message:
            case SpeechStarted():
                return self._started(message)
            case SpeechStopped():
                begun = [] if message.item in self._turns else self._started(message)
                return begun + self._stopped(message.item, message.turn, message.at)
            case Transcript():
                return self._said(message)
            case Transcribed():
                return self._transcribed(message)
        assert isinstance(message, Finished)
        return self._broken(message)

    def _started(self, message: SpeechStarted | SpeechStopped) -> list[Event]:
        if message.item in self._turns or message.item in self._over or message.item in self._talk.told:
            return []
        if message.turn == self._heard_to[0] and message.at < self._heard_to[1]:
            self._over.append(message.item)  # the end of a turn that was told: who reads on has begun in its middle
            return []
        for item in [turn.item for turn in self._turns.values() if not turn.ended]:
            self._end(item)
        self._await(Heard(message.item, message.turn, auto=True))
        self._note(message.turn, message.at)
        return [events.heard("speech_started", message.item, audio_start_ms=message.at // MS)]

    def _stopped(self, name: str, stream: str, at: int) -> list[Event]:
        turn = self._turns.get(name)
        if turn is None or turn.ended:
            return []
        self._await(msgspec.structs.replace(turn, ended=True, left=False))
        self._note(stream, at)
        self._heard_to = (stream, at) if turn.auto else self._heard_to
        item = heard(name)
        previous, gone = self._talk.append(item)
        return [
            events.heard("speech_stopped", name, audio_end_ms=at // MS),
            *events.committed(item.view, previous),
            *map(events.deleted, gone),
        ]

    def _said(self, message: Transcript) -> list[Event]:
        turn = self._turns.get(message.item)
        if turn is None or turn.left:
            return []
        text = message.text[max(0, turn.chars - message.at) :]
        self._turns[turn.item] = msgspec.structs.replace(turn, chars=max(turn.chars, message.at + len(message.text)))
        if not text or not transcribes(self.view):
            return []
        return [events.transcription("delta", turn.item, self._part(turn.item), delta=text)]

    def _transcribed(self, message: Transcribed) -> list[Event]:
        turn = self._turns.get(message.item)
        if turn is None:
            self._keep_early(message)
            return []
        made = [] if turn.ended else self._stopped(turn.item, turn.stream, self.position)
        self._measure(turn, message)
        self._end(turn.item)
        if not turn.auto:
            self._end_left()
        if (item := self._talk.told.get(turn.item)) is None:
            return made  # deleted meanwhile
        made += [events.deleted(gone) for gone in self._talk.finish(transcribed(item, message.text))]
        if turn.auto and self.answers and not blank(message.text):
            self.wanted = self.wanted or {**WANTED}
        return [*made, *self._completed(turn, message)]

    def _completed(self, turn: Heard, message: Transcribed) -> list[Event]:
        if not transcribes(self.view):
            return []
        part = self._part(turn.item)
        if message.problem is not None:
            return [events.untranscribed(turn.item, part, message.problem)]
        return [events.transcript(turn.item, part, message)]

    def _broken(self, finished: Finished) -> list[Event]:
        """The stage has given a stream up: what was said in it stays unknown."""
        made: list[Event] = []
        for turn in [turn for turn in self._turns.values() if turn.stream == finished.turn]:
            failed = Transcribed(finished.session, turn.stream, turn.item, "", problem=finished.problem or SILENT)
            made += self._transcribed(failed)
        return made

    # -- turns

    def _await(self, turn: Heard) -> None:
        self._turns[turn.item] = turn
        if turn.ended:
            self.ended_at[turn.item] = self.last_ended_at = time.monotonic()
        while len(self._turns) > MOST_TURNS:
            self._end(oldest := next(iter(self._turns)))
            if (item := self._talk.told.get(oldest)) is not None:
                self._talk.finish(transcribed(item, ""))

    def _end(self, item: str) -> None:
        self._turns.pop(item, None)
        self.ended_at.pop(item, None)
        self._over.append(item)

    def _keep_early(self, message: Transcribed) -> None:
        if message.item not in self._over:
            self._early[message.item] = message
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)

    def _note(self, stream: str, at: int) -> None:
        if stream == self.stream:
            self.position = max(self.position, at)

    def _part(self, item_id: str) -> int:
        item = self._talk.told.get(item_id)
        return (spoken_part(item) if item is not None else None) or 0

    def _measure(self, turn: Heard, message: Transcribed) -> None:
        ended_at = self.ended_at.get(turn.item)
        if self.metrics is None:
            return
        if message.problem is not None:
            self.metrics.untranscribed.labels(message.problem.code).inc()
        elif ended_at is not None:
            self.metrics.transcript.observe(time.monotonic() - ended_at)
