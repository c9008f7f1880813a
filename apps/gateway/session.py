"""The brain of one session: what its client asks becomes messages for the log, what the log says becomes events.

Sans-I/O: knows no socket and no bus. `receive` and `tick` fill `outgoing`, `read` returns what the client is told.
"""

from __future__ import annotations

import secrets
import time

from apps.gateway import commands as c
from apps.gateway import editing, events
from apps.gateway.account import Account, Position, Repeats, name_of
from apps.gateway.config import SessionConfig
from apps.gateway.conversation import Conversation, Talk
from apps.gateway.events import CONVERSATION, Event
from apps.gateway.items import new_id
from apps.gateway.memory import Memory
from apps.gateway.outgoing import Outgoing
from apps.gateway.protocols.realtime import error_event
from apps.gateway.refusal import RESTARTING, Refusal
from apps.gateway.responding import Responding
from apps.gateway.saying import Saying
from apps.gateway.terms import Terms
from apps.gateway.truncating import Truncating
from apps.gateway.turns import Turns
from apps.gateway.voicing import Voicing
from pipeline.messages import Claimed, Message, Problem, Snapshot, Told
from pipeline.topics import AUDIO


class Session:
    """A conversation and the turns in it. `name` stands for it in the log; in one partition nothing else may have it.

    A session is opened with `open`, or made of a snapshot with `restore` and claimed with `claim`. It is `ours` once
    that has been read back, and `lost` when somebody else has claimed it since.
    """

    speaks = True
    """Whether its client can be spoken to, where there is a speak stage."""

    def __init__(self, name: str, terms: Terms, *, transcription: bool = False) -> None:
        self.id = name
        self.terms = terms
        self.settings = settings = terms.settings
        self.owner = secrets.token_hex(8)
        expires_at = int(time.time() + settings.max_session_s)
        speaks = self.speaks and settings.audio.speaks
        self.config = SessionConfig(settings, session=name, model=terms.model, expires_at=expires_at, speaks=speaks)
        if transcription:
            self.config.only_transcribe()
        self.talk = Talk(max_items=settings.max_conversation_items, max_bytes=settings.max_conversation_bytes)
        self.say = Saying(name, self.owner, terms)
        self.turns = Turns(name, terms, self.talk, self.say)
        self.account = Account(terms.partition, terms.signer.stamp(terms.tenant, name), self.talk, self.turns)
        parts = (name, terms, self.config, self.talk, self.turns, self.account, self.say)
        self.responding, self.voicing = Responding(*parts), Voicing(*parts)
        self.truncating = Truncating(self.talk, self.turns, self.say)
        self.ours = self.lost = self._opened = False
        self._repeats = Repeats({})
        self.memory = Memory()

    @property
    def conversation(self) -> Conversation:
        """The conversation as the client has been told of it."""
        return self.talk.told

    @property
    def expires_at(self) -> int:
        """When the session must end, in seconds since 1970."""
        return int(self.account.view["expires_at"])

    # -- whose it is

    @property
    def begun(self) -> bool:
        """Whether it is known whose it is: from then on it may say something."""
        return self._opened or self.ours

    def open(self) -> None:
        """Begin, and tell the client of its session."""
        self._begin()
        self.say.tell(events.session_event("session.created", self.config.view))

    def _begin(self) -> None:
        account = self.account
        account.model, account.view, account.conversation = self.terms.asked, self.config.view, new_id(CONVERSATION)
        account.holder, self._opened = self.owner, True
        self.say.log(Snapshot(self.id, "", self.owner, account.state()))
        self.turns.go_live(self.terms.metrics)
        self.voicing.resume()

    def restore(self, snapshot: Snapshot, at: Position) -> None:
        """Begin with what a snapshot says, which stands at `at`."""
        self.account.restore(snapshot, at)

    def claim(self, audio: tuple[str, int] | None = None) -> None:
        """Make it ours: from where that stands in the log, nobody else can say anything.

        `audio` is how far its audio stands in the log, and in which stream; None: as was told last.
        """
        self.say.log(Claimed(self.id, "", self.owner, audio))

    def take_over(self, other: Session) -> None:
        """Go on with what `other` hears, which had the session here until now."""
        self.voicing.microphone.take_over(other.voicing.microphone)

    def _go_live(self) -> None:
        """All that counts of what others did has been read."""
        self.config.view = dict(self.account.view)
        self.talk.settle()
        self.turns.go_live(self.terms.metrics)
        self.voicing.resume()
        self._repeats = Repeats(self.account.seen)

    # -- what the client asks

    def receive(self, command: c.Command) -> bool:
        """Carry a command out, or tell the client why not; not again what was done before it came back.

        Returns whether nothing was wrong with it.
        """
        asked = "" if isinstance(command, c.AudioAppend) else name_of(command)
        if self._repeats.has(asked):
            self.terms.metrics.repeated.inc()
            return True
        self.say.asked = asked
        try:
            self._carry_out(command)
        except Refusal as refusal:
            self.say.asked = ""
            self.refuse(refusal.about(command.event_id))
            return False
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client that something is not done."""
        self.terms.metrics.errors.labels(refusal.code).inc()
        self.say.tell(error_event(refusal))

    def _carry_out(self, command: c.Command) -> None:
        match command:
            case c.SessionUpdate():
                self._configure(command.session)
            case c.ItemCreate():
                self.create(command)
            case c.ItemDelete():
                self.say.tell(editing.delete(self.talk.draft, command))
            case c.ItemRetrieve():
                item = editing.known(self.talk.draft, command.item_id, "retrieve")
                self.say.tell({"type": "conversation.item.retrieved", "item": item.view})
            case c.ItemTruncate():
                self.truncating.carry_out(command)
            case c.ResponseCreate():
                self.responding.ask(command)
            case c.ResponseCancel():
                self.responding.cancel(command.response_id)
            case c.AudioAppend() | c.AudioCommit() | c.AudioClear() | c.OutputAudioClear():
                self.voicing.carry_out(command)

    def _configure(self, patch: c.SessionPatch) -> None:
        if patch.type == "transcription" and not self.config.transcription:
            self.voicing.check_transcription(empty=not len(self.talk.draft) and not len(self.turns))
        self.config.update(patch, spoke=self.turns.spoke)
        self.say.tell(events.session_event("session.updated", self.config.view))

    def create(self, command: c.ItemCreate) -> None:
        """Add an item; audio in it goes to be transcribed.

        Raises:
            Refusal: it cannot be added.
        """
        coming = [*(answer.item_id for answer in self.turns), *self.account.ears.begun]
        sound = self.voicing.sound_of(command.item)
        hears, most = self.settings.audio.hears, self.settings.max_text_bytes
        told = editing.create(self.talk.draft, command, coming, max_text=most, hears=hears)
        self.say.tell(*told)
        if sound is not None:
            self.voicing.microphone.transcribe(sound, told[0]["item"]["id"])

    # -- responses

    def left(self) -> None:
        """The client's connection has ended."""
        if self.ours and not self.lost:
            self.voicing.left()

    def abandon(self) -> None:
        """Give all turns up: the client has gone and did not come back."""
        self.voicing.end()
        for answer in self.turns:
            self.turns.cancel(answer, time.monotonic())

    def end_turns(self) -> None:
        """End all turns, and tell the client: the gateway stops."""
        self.turns.end(Problem("shutting_down", RESTARTING, retry_after=2.0), time.monotonic())

    def drop(self) -> None:
        """Give all turns up, and forget them: nobody will be told how they end."""
        self.voicing.end()
        self.turns.drop(time.monotonic())

    # -- what the log says

    def read(self, at: Position, message: Message, *, known: bool = False) -> list[Event]:
        """The events that a record of the session makes; none where the client has got them (`known`).

        Raises:
            msgspec.DecodeError: it is of another version.
        """
        if isinstance(message, Claimed) or (isinstance(message, Snapshot) and message.at is None):
            if message.owner == self.owner:
                return self._come_in(at, message)
            if self._opened and not self.ours:
                return []  # an earlier session of that name, before ours begins
            if self.ours or isinstance(message, Snapshot):
                return self._let_go()
        if isinstance(message, Snapshot):
            self.memory.read(message, self.owner)
        made = self.account.read(at, message, known=known)
        if isinstance(message, Told) and self.say.heard(message):
            self.talk.settle()
        if self.begun:
            self.voicing.read(message, made)
            self.responding.go_on()
        return made

    def _come_in(self, at: Position, message: Message) -> list[Event]:
        made = self.account.read(at, message)
        self.ours = True
        if isinstance(message, Claimed):
            self._go_live()
            self.responding.go_on()
        return made

    def _let_go(self) -> list[Event]:
        self.lost = True
        self.voicing.let_go()
        self.turns.let_go(time.monotonic())
        return []

    def tick(self, now: float) -> bool:
        """End what should have ended; whether the log has lost an end."""
        if self.begun and not self.lost:
            self.voicing.tick(now)
            self.responding.go_on()
        return self.turns.tick(now)

    def flow(self, now: float) -> float:
        """Let audio that waits go on; returns the seconds until more of it may, 0 if none waits."""
        return self.voicing.flow(now)

    def remember(self, at: int, distance: int) -> None:
        """Put a snapshot into the log where one is due, all having been read up to offset `at`.

        One is due where as much came since the last one as that had, or where it stands `distance` records back.
        """
        account = self.account
        if self.ours and not self.turns.waits and self.memory.due(account.since, at + 1 - account.base, distance):
            state = account.state()
            self.memory.made(state)
            self.say.log(Snapshot(self.id, "", self.owner, state, at, account.last))

    def undelivered(self, sent: Outgoing, why: Exception) -> bool:
        """A record did not reach the log; whether the client has to send again what was in it."""
        if sent.topic is AUDIO:
            return self.voicing.undelivered(sent.message.turn)
        if isinstance(sent.message, Snapshot):
            self.memory.lost()
            return False
        if isinstance(sent.message, Told):
            self.say.on_the_way = 0
            self.talk.settle()
        self.turns.undelivered(sent, why, time.monotonic())
        return False

    def outgoing(self) -> list[Outgoing]:
        """What is to be handed to the log since the last call, in order."""
        return self.say.take()
