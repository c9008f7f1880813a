"""What is tried: each target takes one input, and raises only where something is wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from apps.dead_letters import Id, Survey, _noted, letter_of
from apps.gateway.account import Position
from apps.gateway.cursor import BadCursor, Cursor, Signer
from apps.gateway.keys import Keyring, read
from apps.gateway.metrics import GatewayMetrics
from apps.gateway.protocols.chat import Chat
from apps.gateway.protocols.realtime import Realtime, Unreadable
from apps.gateway.refusal import Refusal
from apps.gateway.seats import Seats
from apps.gateway.session import Session
from apps.gateway.settings import TokenSettings
from apps.gateway.tenants import BadCredential
from apps.gateway.terms import Terms
from apps.gateway.tokens import Tokens
from apps.supervisor.words import order_of, report_of, word_of
from pipeline.bus import Part, Record
from pipeline.errors import SettingsError, UndecodableMessage
from pipeline.job import Job
from pipeline.journal import Fence
from pipeline.messages import Delta, Finished, Message, Turn
from pipeline.secret import Secret
from pipeline.topics import DEAD_LETTERS, REPLIES, ROUTE, Topic
from tests.apps.gateway.harness import settings
from tests.fuzz.inputs import FRAMES, HEADERS, TEXTS, damaged, latin, records

Told = list[dict[str, Any]]
LONGEST = 4096


class Target(NamedTuple):
    """Something that takes input from outside. `cost` is how many times longer it takes than a plain decoder."""

    name: str
    inputs: st.SearchStrategy[Any]
    take: Callable[[Any], None]
    cost: int = 1


def decodes(topic: Topic) -> Target:
    """What stands in `topic` is one of its messages, which can be written again, or is refused by one error."""

    def take(value: bytes) -> None:
        try:
            message = topic.decode(value)
        except UndecodableMessage:
            return
        assert isinstance(message, topic.types)
        topic.encode(message)

    return Target(f"topic {topic.name}", records(topic.name), take)


# ---- what clients send -----------------------------------------------------------------------------------------------


def realtime(frame: str | bytes) -> None:
    """A frame is a command, or is refused in words that can be sent."""
    codec = Realtime(longest=LONGEST)
    try:
        codec.receive(frame)
    except Refusal as refusal:
        codec.complaint(refusal)


def chat(frame: str | bytes) -> None:
    """A frame is a line, or is refused in words."""
    codec = Chat(longest=LONGEST)
    try:
        codec.receive(frame)
    except Refusal as refusal:
        codec.complaint(refusal)


SIGNER = Signer("a secret of the fuzzing")
STAMP = SIGNER.stamp("acme", "sess_1")
CURSOR = Cursor(3, 17, 2, 5)


def cursor(event_id: str) -> None:
    """An id is one of this session's, and then the very text that was made, or is refused by one error."""
    try:
        found = STAMP.read(event_id)
    except BadCursor:
        return
    assert STAMP.id(found) == event_id
    with contextlib.suppress(BadCursor):
        SIGNER.stamp("other", "sess_1").read(event_id)
        raise AssertionError("another tenant's cursor was read")


CURSORS = TEXTS | latin(damaged(st.just(STAMP.id(CURSOR).encode())))

RING = Keyring([])
TOKENS = Tokens(TokenSettings(key=Secret("a secret of more than thirty-two bytes")))
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0ZW5hbnQiOiJhY21lIiwiZXhwIjo0MTAyNDQ0ODAwfQ."
    "c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmE"
)


def credential(given: str) -> None:
    """A made-up key or token lets nobody in, and is refused by one error."""
    assert RING.find(given) is None
    try:
        TOKENS.checked(given)
    except BadCredential:
        return
    raise AssertionError("a made-up token was let in")


def key_file(content: bytes) -> None:
    """A file of keys is one, or is refused by the name of its setting."""
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with contextlib.suppress(SettingsError):
            Keyring(read(Path(file.name))).find("penstock_000000000000_" + "A" * 43)


# ---- what stands in the log ------------------------------------------------------------------------------------------


class Pair:
    """Two sessions of one gateway, of which one suffers all that is thrown at it."""

    def __init__(self) -> None:
        self.metrics = GatewayMetrics(CollectorRegistry())
        config = settings()
        self.seats = Seats(config, self.metrics)
        terms = Terms("m", 0, config, self.metrics, list)
        self.victim, self.other = Session("sess_a", terms), Session("sess_b", terms)
        self.codec, self.offset = Realtime(longest=LONGEST), 0
        for session in (self.victim, self.other):
            self.seats.add(session, time.monotonic())
            session.open()
        self.pump()

    def read(self, message: Message) -> None:
        """A record comes from the log."""
        self.offset += 1
        self.seats.read(Position(0, self.offset), message)

    def pump(self) -> list[Turn]:
        """Read back what the sessions said; returns the turns."""
        said = [*self.victim.outgoing(), *self.other.outgoing()]
        for out in said:
            if out.topic is REPLIES:
                self.read(REPLIES.decode(REPLIES.encode(out.message)))
        return [out.message for out in said if isinstance(out.message, Turn)]

    def frame(self, session: Session, frame: str | bytes) -> None:
        """The client of `session` sends a frame."""
        try:
            session.receive(self.codec.receive(frame))
        except Unreadable:
            pass
        except Refusal as refusal:
            session.refuse(refusal)

    def asks(self) -> str:
        """The other session asks and is answered; returns how its turn ended."""
        self.frame(self.other, '{"type":"conversation.item.create","item":' + HELLO + "}")
        self.frame(self.other, '{"type":"response.create"}')
        (turn,) = [turn for turn in self.pump() if turn.session == self.other.id]
        self.read(Delta(turn.session, turn.turn, at=0, text="yes", index=1))
        self.read(Finished(turn.session, turn.turn, status="completed", length=3))
        return "over" if not len(self.other.turns) else "hangs"


HELLO = '{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}'


def sessions(thrown: list[str | bytes]) -> None:
    """Frames of one client end neither its session nor another's, which is answered as if nothing were."""
    pair = Pair()
    for frame in thrown:
        pair.frame(pair.victim, frame)
        pair.pump()
    assert pair.seats.get("sess_a") is not None, "its own frames have ended a session"
    assert pair.asks() == "over"


def replies(thrown: list[bytes]) -> None:
    """Records that nobody wrote in earnest may cost the session that they name, and no other."""
    pair = Pair()
    for value in thrown:
        with contextlib.suppress(UndecodableMessage):
            message = REPLIES.decode(value)
            if message.session.partition("/")[0] != "sess_b":
                pair.read(message)
        pair.pump()
    assert pair.seats.get("sess_b") is not None
    assert pair.asks() == "over"


def headers(given: dict[str, str]) -> None:
    """Any headers of a record are read, and what makes no sense in them is as if it were not there."""
    record = Record(Part("prompts", 0), 5, 1000, "key", b"", given)
    job = Job(record, Turn("s", "t", ()), patience=10.0, grace=1.0)
    assert job.request.deadline <= time.time() + 10
    assert set(job.passed_on) <= set(given)
    Fence().passes(record)
    _noted(Survey(), record)


def letters(given: tuple[bytes, dict[str, str]]) -> None:
    """A record of the dead letters is one, and can be shown, or is told as strange."""
    record = Record(Part(DEAD_LETTERS.name, 0), 5, 1000, "key", *given)
    letter_of(record)
    _noted(Survey(), record)
    with contextlib.suppress(ValueError):
        Id.parse(given[1].get("retried", ""))


def words(text: bytes) -> None:
    """A line from a pipe or socket of the supervisor is a word, or is refused by one error."""
    for decode in (order_of, word_of, report_of):
        with contextlib.suppress(UndecodableMessage):
            decode(text)


PIPES = st.one_of(
    damaged(st.just(b'{"type":"beat","phase":"serving","parts":["a-1"],"lag":3,"step_s":0.5}')),
    st.integers(1, 5000).map(lambda levels: b'{"type":' + b"[" * levels),
    st.binary(max_size=40),
)
FILES = st.one_of(
    damaged(
        st.just(
            b'{"keys":[{"id":"000000000000","tenant":"a","created":"",'
            b'"salt":"AAAAAAAAAAAAAAAAAAAAAA==","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}],"version":1}'
        )
    ),
    st.integers(1, 5000).map(lambda levels: b'{"keys":' + b"[" * levels),
)

TARGETS = (
    Target("realtime frames", FRAMES, realtime),
    Target("chat frames", FRAMES, chat),
    Target("cursors", CURSORS, cursor),
    Target("keys and tokens", TEXTS | latin(damaged(st.just(TOKEN.encode()))), credential),
    Target("files of keys", FILES, key_file),
    Target("headers", HEADERS, headers),
    Target("dead letters", st.tuples(records(DEAD_LETTERS.name), HEADERS), letters),
    Target("words of the supervisor", PIPES, words),
    *map(decodes, ROUTE),
    Target("sessions", st.lists(FRAMES, min_size=1, max_size=6), sessions, cost=8),
    Target("replies", st.lists(records(REPLIES.name), min_size=1, max_size=6), replies, cost=8),
)
