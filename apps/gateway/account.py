"""A session as the log tells it: whose it is, what its client was told, and from where one must read to know all that.

Changes only by what is read, in the log's order: whoever reads the same records has the same, and makes the same events
of what follows. Sans-I/O.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from apps.gateway import events
from apps.gateway.answer import SPEECH, Running
from apps.gateway.commands import Command
from apps.gateway.conversation import Talk
from apps.gateway.cursor import Cursor, Stamp
from apps.gateway.events import Event
from apps.gateway.heard import Hearing
from apps.gateway.hearing import Ears
from apps.gateway.items import restored
from apps.gateway.speaking import MS, Track
from apps.gateway.streams import is_stream
from apps.gateway.truncating import truncated
from apps.gateway.turns import Turns
from apps.gateway.voices import interrupts
from pipeline.messages import Claimed, Finished, Message, Snapshot, Told
from pipeline.voice import SpeechStarted, SpeechStopped, Transcribed, Transcript

MOST_SEEN = 512
"""Client events that are known again by their ids."""
LONGEST_NAME = 64
"""Characters of a client's event id, beyond which it is known by its hash."""

Line = str | tuple[str, str]
"""A line that waits, or the code and the message by which it will be refused when it is its turn."""


class Position(NamedTuple):
    """Where a record stands in `replies`."""

    partition: int
    offset: int


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is known of a session at one place of the log, for a snapshot."""

    owner: str
    model: str | None
    view: dict[str, Any]
    conversation: str
    items: tuple[dict[str, Any], ...] = ()
    running: tuple[Running, ...] = ()
    over: tuple[str, ...] = ()
    seen: tuple[tuple[str, int], ...] = ()
    lines: tuple[Line, ...] = ()
    tracks: tuple[tuple[str, Track], ...] = ()
    hearing: Hearing | None = None


_decoder = msgspec.msgpack.Decoder(State)


class Account:
    """What the log tells of one session.

    `holder` is whom it belongs to: what others tell does not count. `view` is how it is configured. `seen` are the
    client's events that were carried out lately, each with how often. `lines` wait for their turn. `base` is where to
    begin to read, and `since` counts what has come from there on; `last` is the last event: its record, its number.
    """

    def __init__(self, partition: int, stamp: Stamp, talk: Talk, turns: Turns) -> None:
        self._partition, self.stamp, self._talk, self._turns = partition, stamp, talk, turns
        self.ears = Ears(talk)
        self.holder = ""
        self.model: str | None = None
        self.conversation = ""
        self.seen: OrderedDict[str, int] = OrderedDict()
        self.lines: deque[Line] = deque()
        self.base = 0
        self.since = 0
        self.last: tuple[int, int] | None = None

    @property
    def view(self) -> Mapping[str, Any]:
        """How the session is configured."""
        return self.ears.view

    @view.setter
    def view(self, view: Mapping[str, Any]) -> None:
        self.ears.view = view

    # -- snapshots

    def state(self) -> bytes:
        """All that is known, for a snapshot."""
        return msgspec.msgpack.encode(
            State(
                self.holder,
                self.model,
                dict(self.view),
                self.conversation,
                tuple(item.view for item in self._talk.told),
                self._turns.running(time.monotonic()),
                tuple(self._turns.over),
                tuple(self.seen.items()),
                tuple(self.lines),
                tuple(self._turns.tracks.items()),
                self.ears.state(),
            )
        )

    def restore(self, snapshot: Snapshot, at: Position) -> None:
        """Begin with what a snapshot says, which stands at `at`.

        Raises:
            msgspec.DecodeError: it says nothing that this version understands.
        """
        state = _decoder.decode(snapshot.state)
        self.holder, self.model = state.owner, state.model
        self.view, self.conversation = state.view, state.conversation
        for view in state.items:
            self._talk.told.insert(restored(view), after=None)
        self._turns.restore(state.running, state.over, time.monotonic())
        self.seen.update(state.seen)
        self.lines.extend(state.lines)
        self._turns.tracks.update(state.tracks)
        if state.hearing is not None:
            self.ears.restore(state.hearing)
        self.last = snapshot.last
        self.base = base_of(snapshot, at)

    # -- reading

    @property
    def last_id(self) -> str:
        """The id of the last event."""
        offset, number = self.last or (self.base, 0)
        return self.stamp.id(Cursor(self._partition, offset, number, self.base))

    def read(self, at: Position, message: Message, *, known: bool = False) -> list[Event]:
        """The events that a record makes, each with its id; none where the client has got them (`known`)."""
        made = self._made(at, message)
        if not made:
            return []
        self.last = (at.offset, len(made) - 1)
        if known:
            return []
        return [
            {"event_id": self.stamp.id(Cursor(at.partition, at.offset, number, self.base)), **event}
            for number, event in enumerate(made)
        ]

    def _made(self, at: Position, message: Message) -> list[Event]:
        self.since += 1
        match message:
            case Snapshot():
                if message.at is None:
                    self.holder = message.owner
                if message.owner == self.holder:
                    self.base, self.since = base_of(message, at), 0
                return []
            case Claimed():
                self.holder = message.owner
                if message.audio is not None:
                    self.ears.moved(*message.audio)
                return [self._resumed()]
            case Told():
                return self._hear(message) if message.owner == self.holder else []
            case SpeechStarted():
                return self._spoken_to(message)
            case SpeechStopped() | Transcript() | Transcribed():
                return self.ears.read(message)
            case Finished() if is_stream(message.turn):
                return self.ears.read(message)
        return self._turns.read(message)

    def _resumed(self) -> Event:
        """The session has moved; what of its audio has certainly arrived is told, because its client cannot know."""
        more = {"input_audio_ms": self.ears.position // MS} if self.ears.position else {}
        return {**events.session_event("session.updated", self.view), "resumed": True, **more}

    def _spoken_to(self, message: SpeechStarted) -> list[Event]:
        """The user begins to speak, which ends the answer that is under way."""
        made = self.ears.read(message)
        if made and interrupts(self.view):
            made += self._turns.cut(self._turns.current, SPEECH, time.monotonic())
        return made

    def _hear(self, told: Told) -> list[Event]:
        if told.asked:
            self.seen[told.asked] = self.seen.pop(told.asked, 0) + 1
            if len(self.seen) > MOST_SEEN:
                self.seen.popitem(last=False)
        for _ in range(min(told.takes, len(self.lines))):
            self.lines.popleft()
        self.lines.extend(line for line in (told.line, told.refused) if line is not None)
        told = self.ears.complete(told)
        self._talk.hear(told.events)
        self._configure(told.events)
        made = self._turns.told(told) if told.turn else list(told.events)
        if told.cuts is not None:
            response, reason = told.cuts
            made += self._turns.cut(self._turns.get(response), reason, time.monotonic())
        return made + self.ears.told(told)

    def _configure(self, told: Iterable[Event]) -> None:
        for event in told:
            if event["type"] in ("session.created", "session.updated"):
                self.view = event["session"]
            elif event["type"] == "conversation.item.truncated":
                truncated(self._turns, event)


def base_of(snapshot: Snapshot, at: Position) -> int:
    """From where to read in order to begin with `snapshot`, which stands at `at`, and miss nothing since."""
    return at.offset if snapshot.at is None else snapshot.at + 1


def name_of(command: Command) -> str:
    """How a client's event is known again: by its id, its kind, and a hash of all it says; nothing if it has no id."""
    event_id = command.event_id
    if not event_id:
        return ""
    try:
        content = blake2b(msgspec.json.encode(command), digest_size=8).hexdigest()
    except RecursionError:  # nested so deeply that it is refused in any case
        return ""
    long = len(event_id) > LONGEST_NAME
    known = blake2b(event_id.encode(), digest_size=16).hexdigest() if long else event_id
    return f"{known} {command.__struct_config__.tag} {content}"


class Repeats:
    """What was done before the client came back: `seen` are its events of then, each with how often.

    Some clients give all their events one id: such an id stands for none of them. Others number anew the events of each
    connection: an id that stands for something else now shows that, and no id stands for what was done before.
    """

    def __init__(self, seen: Mapping[str, int]) -> None:
        times: Counter[str] = Counter()
        for asked, count in seen.items():
            times[asked.rpartition(" ")[0]] += count
        self._done = {asked for asked in seen if times[asked.rpartition(" ")[0]] == 1}
        self._ids = {_id(asked) for asked in self._done}

    def has(self, asked: str) -> bool:
        """Whether that is a repetition."""
        if asked in self._done:
            return True
        if _id(asked) in self._ids:
            self._done.clear()
            self._ids.clear()
        return False


def _id(asked: str) -> str:
    return asked.rsplit(" ", 2)[0]
