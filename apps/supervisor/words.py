"""What a supervisor and its workers tell each other over pipes, a JSON object a line; and what `status` is told."""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.errors import UndecodableMessage

Phase = Literal["loading", "warm", "joining", "serving", "draining"]
"""Of a worker. `warm`: everything is loaded, and it waits for its identity."""

Role = Literal["active", "standby", "starting", "backing off", "draining"]


class Take(msgspec.Struct, tag="take", tag_field="type"):
    """To a worker: join the group as the static member `identity`."""

    identity: str


class Measure(msgspec.Struct, tag="measure", tag_field="type"):
    """To a worker: send your metrics."""


class Beat(msgspec.Struct, tag="beat", tag_field="type", omit_defaults=True):
    """From a worker's event loop, each second and whenever its phase changes.

    `note` says in words what it does, or why it cannot serve just now. `parts` are its partitions (topic-number);
    `lag` the records in them that it was not yet given, None where Kafka does not tell; `taken` counts the records that
    it was given so far, `in_hand` the turns that it works on, `listening` of them streams that wait for more; `step_s`
    is for how long its model has been in one step.
    """

    phase: Phase
    note: str = ""
    parts: tuple[str, ...] = ()
    lag: int | None = None
    taken: int = 0
    in_hand: int = 0
    step_s: float = 0.0
    listening: int = 0


class Failed(msgspec.Struct, tag="failed", tag_field="type"):
    """A worker's last word: why it ends. `lasting`: it will be the same at each start, until somebody mends it."""

    why: str
    lasting: bool = False


class Metrics(msgspec.Struct, tag="metrics", tag_field="type"):
    """A worker's metrics, in Prometheus' text format."""

    text: str


Order = Take | Measure
Word = Beat | Failed | Metrics


class Row(msgspec.Struct):
    """A worker in a `Report`: one of the ids, or a standby (`identity` is empty). Times in seconds.

    `pid` is None while no process is there; `since` (1970) is when it started; `lag` is None if it is not known.
    """

    name: str
    identity: str
    role: Role
    pid: int | None = None
    note: str = ""
    parts: tuple[str, ...] = ()
    lag: int | None = None
    in_hand: int = 0
    restarts: int = 0
    reason: str = ""
    since: float | None = None


class Report(msgspec.Struct):
    """How a supervisor and its workers are. `since` is when it started, in seconds since 1970."""

    name: str
    stage: str
    pid: int
    since: float
    replicas: int
    standby: int
    workers: list[Row]


_orders = msgspec.json.Decoder(Order)
_words = msgspec.json.Decoder(Word)
_reports = msgspec.json.Decoder(Report)


def line(word: Order | Word) -> bytes:
    """`word` as it goes through a pipe."""
    return msgspec.json.encode(word) + b"\n"


def order_of(text: bytes) -> Order:
    """The order in a line.

    Raises:
        UndecodableMessage: it is none.
    """
    try:
        order: Order = _orders.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableMessage("the supervisor's pipe", str(error)) from error
    return order


def word_of(text: bytes) -> Word:
    """What a worker says in a line.

    Raises:
        UndecodableMessage: nothing that is known.
    """
    try:
        word: Word = _words.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableMessage("a worker's pipe", str(error)) from error
    return word


def report_of(text: bytes) -> Report:
    """The report in what a supervisor sent.

    Raises:
        UndecodableMessage: it is none.
    """
    try:
        return _reports.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableMessage("a supervisor's socket", str(error)) from error
