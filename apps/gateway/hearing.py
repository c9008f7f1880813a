"""What the speech stage says of a session's audio, as the client is told of it, and what is to be done for it.

Changes only by what is read, in the log's order. Positions are samples at 24 kHz from the session's start. Sans-I/O.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from apps.gateway import events
from apps.gateway.conversation import Talk
from apps.gateway.events import Event
from apps.gateway.heard import FRAMES, MOST_EARLY, MOST_OVER, MOST_TURNS, SILENT, Heard, Hearing, speech_stopped
from apps.gateway.items import blank, heard, restored, spoken_part, transcribed, untranscribed
from apps.gateway.metrics import VoiceMetrics
from apps.gateway.speaking import MS
from apps.gateway.streams import aside
from apps.gateway.voices import answers, transcribes
from apps.gateway.waiting import Waiting
from pipeline.messages import Finished, Message, Told
from pipeline.voice import SpeechStarted, SpeechStopped, Transcribed, Transcript


class Ears:
    """Reads what is said of a session's audio into `talk`.

    `view` is how the session is configured. What only its live owner does goes by `metrics`, which it alone has, and
    `ended_at`: when a turn of speech ended, in seconds of the gateway's clock.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.view: Mapping[str, Any] = {}
        self.stream, self.position, self.begins = "", 0, 0
        self.noted_at = 0.0
        self.waiting = Waiting()
        self.metrics: VoiceMetrics | None = None
        self.ended_at: dict[str, float] = {}
        self.last_ended_at: float | None = None
        self._turns: OrderedDict[str, Heard] = OrderedDict()
        self._over: deque[str] = deque(maxlen=MOST_OVER)
        self._early: OrderedDict[str, Transcribed] = OrderedDict()
        self._heard_to, self._cleared = ("", 0), 0

    # -- snapshots

    def state(self) -> Hearing | None:
        """All that is known, for a snapshot; None: nothing was ever heard."""
        if not (self.stream or self._turns or self._over or self.waiting.wanted):
            return None
        kept = dict(self._turns), tuple(self._over), dict(self._early), self.waiting.wanted
        places = self._heard_to, self.begins, self.noted_at
        return Hearing(self.stream, self.position, *kept, *places, tuple(self.waiting.beside), self._cleared)

    def restore(self, state: Hearing) -> None:
        """Go on from a snapshot."""
        self.stream, self.position, self.waiting.wanted = state.stream, state.position, state.wanted
        self.waiting.beside.extend(state.beside)
        self._turns.update(state.turns)
        self._over.extend(state.over)
        self._early.update(state.early)
        self._heard_to, self.begins, self.noted_at = state.heard_to, state.begins, state.noted_at
        self._cleared = state.cleared

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
        return tuple(turn.item for turn in self._turns.values() if turn.begun)

    def overdue(self, since: float) -> Iterator[Heard]:
        """Those that have waited for it since then or longer."""
        return (turn for turn in self.pending if self.ended_at.setdefault(turn.item, time.monotonic()) < since)

    # -- what the gateway tells

    def complete(self, told: Told) -> Told:
        """The same with the end of speech that has begun, which a commit makes an item, and a clear forgets.

        The item is then the one that was told to come; the speech stage calls it by the other name, that of the commit.
        """
        stream, at = told.audio or (self.stream, self.position)
        turn = next((turn for turn in self._turns.values() if turn.begun and turn.stream == stream), None)
        kinds = [event["type"] for event in told.events]
        if kinds[:1] == ["input_audio_buffer.committed"]:
            return replace(told, events=self._committed(told.events, turn, (stream, at)))
        if turn is None or "input_audio_buffer.cleared" not in kinds:
            names = {turn.alias: turn.item for turn in self._turns.values() if turn.alias}
            return replace(told, events=tuple(events.renamed(event, names) for event in told.events))
        self._turns[turn.item] = replace(turn, left=True)
        return replace(told, events=(speech_stopped(turn, at), *told.events))

    def _committed(self, said: tuple[Event, ...], turn: Heard | None, place: tuple[str, int]) -> tuple[Event, ...]:
        """What a commit at `place` in a stream tells, where `turn` has begun."""
        (_, added, _, *more), (stream, at) = said, place
        name = added["item"]["id"]
        previous = next(reversed(self._talk.told.ids), None)
        if turn is None:
            self._await(Heard(name, stream, ended=True, at=at))
            return (*events.committed(added["item"], previous), *more)
        self._await(replace(turn, ended=True, at=at, alias=name))
        return (speech_stopped(turn, at), *events.committed(heard(turn.item).view, previous), *more)

    def told(self, told: Told) -> list[Event]:
        """Take over what a client is told of its audio; returns what that makes of a transcript that came early."""
        if told.audio is not None:
            self.stream, at = told.audio
            self.position, self.noted_at = max(self.position, at), told.heard_at
        self.waiting.told(told)
        made: list[Event] = []
        for event in told.events:
            if event["type"] in ("input_audio_buffer.committed", "input_audio_buffer.cleared"):
                self.begins = self.position
            if event["type"] == "input_audio_buffer.cleared":
                self._cleared = self.position
            if event["type"] == "conversation.item.done" and untranscribed(restored(event["item"])):
                made += self._expect(event["item"]["id"])
        return made

    def moved(self, stream: str, position: int) -> None:
        """The session has another owner, who has read how far the audio stands in the log, and in which stream."""
        heard_in, heard_to = self._heard_to
        self.position = max(position, heard_to if heard_in == self.stream else 0)
        self.stream = stream
        if not stream:
            self.begins = self.position

    def _expect(self, item: str) -> list[Event]:
        """An item has come whose transcript is awaited, or has come before it."""
        turn = self._turns.get(item) or Heard(item, aside(item), ended=True)
        self._await(turn)
        return self._transcribed(self._early.pop(turn.name)) if turn.name in self._early else []

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

    def _called(self, name: str) -> Heard | None:
        """The turn that the speech stage calls so."""
        return next((turn for turn in self._turns.values() if turn.name == name), None)

    def _started(self, message: SpeechStarted | SpeechStopped) -> list[Event]:
        if message.item in self._turns or message.item in self._over or message.item in self._talk.told:
            return []
        if message.turn == self._heard_to[0] and message.at < self._heard_to[1]:
            self._over.append(message.item)  # the end of a turn that was told: who reads on has begun in its middle
            return []
        before = [turn for turn in self._turns.values() if not turn.ended]
        for turn in before:
            self._end(turn.item)
        made = [speech_stopped(turn, message.at) for turn in before if turn.begun]
        ours = message.turn == self.stream
        left = ours and message.at + FRAMES < self._cleared
        turn = Heard(message.item, message.turn, auto=True, at=message.at, left=left)
        self._await(turn)
        self._note(message.turn, message.at)
        start = max(message.at, self.begins) if ours and self.begins < message.at + FRAMES else message.at
        made.append(events.heard("speech_started", message.item, audio_start_ms=start // MS))
        return [*made, speech_stopped(turn, self._cleared)] if left else made

    def _stopped(self, name: str, stream: str, at: int) -> list[Event]:
        turn = self._turns.get(name)
        if turn is None or (turn.ended and not turn.alias):
            return []
        self._note(stream, at)
        self.begins = max(self.begins, at)
        self._heard_to = (stream, at) if turn.auto else self._heard_to
        if turn.alias:  # it had ended before the commit, which is of what came behind it
            self._turns[name] = replace(turn, alias="")
            return self._added(Heard(turn.alias, stream, ended=True, at=turn.at))
        return [speech_stopped(turn, at)] * turn.begun + self._added(replace(turn, ended=True, left=False))

    def _added(self, turn: Heard) -> list[Event]:
        """What was said in a turn is an item."""
        self._await(turn)
        item = heard(turn.item)
        previous, gone = self._talk.append(item)
        return [*events.committed(item.view, previous), *map(events.deleted, gone)]

    def _said(self, message: Transcript) -> list[Event]:
        turn = self._called(message.item)
        if turn is None or turn.left or (turn.ended and turn.item not in self._talk.told):
            return []
        text = message.text[max(0, turn.chars - message.at) :]
        self._turns[turn.item] = replace(turn, chars=max(turn.chars, message.at + len(message.text)))
        if not text or not transcribes(self.view):
            return []
        return [events.transcription("delta", turn.item, self._part(turn.item), delta=text)]

    def _transcribed(self, message: Transcribed) -> list[Event]:
        turn = self._called(message.item)
        if turn is None:
            self._keep_early(message)
            return []
        made = [] if turn.ended else self._stopped(turn.item, turn.stream, self.position)
        self._measure(turn, message)
        self._end(turn.item)
        by_itself = turn.auto and not turn.alias
        made += [] if by_itself else self._end_before(turn)
        if (item := self._talk.told.get(turn.item)) is None:
            return made  # deleted meanwhile
        made += [events.deleted(gone) for gone in self._talk.finish(transcribed(item, message.text))]
        if by_itself and answers(self.view) and not blank(message.text):
            self.waiting.speak()
        return [*made, *self._completed(turn, message)]

    def _end_before(self, commit: Heard) -> list[Event]:
        """What had begun before a commit, and had not ended, was a part of that, or was forgotten before."""
        over = [turn for turn in self._turns.values() if not turn.ended and turn.stream == commit.stream]
        over = [turn for turn in over if turn.at < commit.at - FRAMES]
        for turn in over:
            self._end(turn.item)
        if commit.stream == self.stream:
            before = self._heard_to[1] if self._heard_to[0] == commit.stream else 0
            self._heard_to = commit.stream, max(before, commit.at - FRAMES)
        return [speech_stopped(turn, commit.at) for turn in over if not turn.left]

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
            failed = Transcribed(finished.session, turn.stream, turn.name, "", problem=finished.problem or SILENT)
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
        turn = self._turns.pop(item, None)
        self.ended_at.pop(item, None)
        self._over.extend({item, turn.name} if turn is not None else (item,))

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
