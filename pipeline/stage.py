"""What a stage is: a callable that turns a message, or the messages of one turn, into an async stream of messages.

The loop that runs it stands in `loop.py`; a stage knows nothing of it, nor of a bus.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.messages import Done, Finished, Message, Problem
from pipeline.topics import TOPIC_OF, Topic

Stream = AsyncGenerator[Any, None]
StopReason = Literal["cancelled", "deadline", "failed"]

Each = Callable[[Any], Stream]
"""One message in, a stream of messages out."""

Folding = Callable[[Stream], Stream]
"""All messages of one turn in, as a stream, and a stream of messages out. Its state is its local variables.

Between the messages it may yield `Settled`.
"""

Resume = Callable[[Any, Sequence[Any]], Message | None]
"""(message, what was already published for it) → the message to go on with; None: nothing is left to do."""

Stopped = Callable[[Message, Sequence[Message], StopReason], Message]
"""(message, what was published for it, why it is given up) → what to say instead of the rest: Done or Finished."""


class Settled(NamedTuple):
    """A folding stage's word to the loop, which publishes nothing for it: what was read so far, and need not be again.

    The first `messages` that this call of the stage was given are done with, once all that it yielded before
    stands in the log: they may be committed, and are forgotten together with what was published for them. A later call
    for the same turn (a retry, a new owner) begins with the message after them, and has to say the same from there on.

    No more messages than before, such as none at all: only what was published is forgotten, but the last of it. So one
    message of which very much comes does not hold all of that in memory until it is done with.
    """

    messages: int


LATE = Problem("deadline_exceeded", "the answer was not ready in time")
"""What a client is told of a deadline, whichever stage notices that it is over."""


def finished(message: Message, published: Sequence[Message], reason: StopReason) -> Finished:
    """The terminal event of a turn that was given up before it reached a stage that knows better."""
    if reason == "cancelled":
        return Finished(message.session, message.turn, status="cancelled", reason=reason)
    problem = LATE if reason == "deadline" else None
    return Finished(message.session, message.turn, status="failed", reason=reason, problem=problem)


@dataclass(frozen=True)
class Retry:
    """How often to try a message whose failure a retry can mend; waits double from `first` to `most` seconds."""

    attempts: int = 5
    first: float = 0.1
    most: float = 5.0


@dataclass(frozen=True)
class Stage:
    """A named callable between two topics.

    Exactly one of `each` and `folding` is set. A folding stage gets the messages of one turn as a stream, which ends
    with the message for which `last` is true; of a turn is committed before that only what the stage says is `Settled`.
    What `stopped` gets as published is then what was published since.

    A folding stage with an `idle_s` is open-ended: a turn of it is a stream that may go on for hours. It has no
    deadline, and its messages end, too, when none has come for `idle_s` seconds; one that comes later begins a new
    call. A stopping worker leaves it where it is, to be gone on with elsewhere from what is settled.

    A stage with a `resume` can go on in the middle of a message: `journal` is the topic that it publishes to, which a
    new owner of a partition reads back; its partitions correspond to those of `reads`.

    `span` bounds the records of a partition between the oldest unfinished and the newest started (of a folding stage:
    those that wait to be read, for the oldest turn can end only by reading on). `concurrency` bounds the messages that
    are being worked on at once, and the open-ended streams: one more is refused at once, for it cannot wait without
    holding up the others of its partition. `unsettled` bounds the bytes that an open-ended stream has read and not
    settled: one that exceeds it has failed. A stage that is not `cancellable` lets the word of a stage before it come
    through; `grace` is how many seconds it waits for that beyond a turn's deadline.
    """

    name: str
    reads: Topic
    each: Each | None = None
    folding: Folding | None = None
    last: Callable[[Message], bool] = lambda _: True
    stopped: Stopped = finished
    journal: Topic | None = None
    resume: Resume | None = None
    retry: Retry = field(default_factory=Retry)
    span: int = 1000
    concurrency: int = 256
    cancellable: bool = True
    grace: float = 0.0
    idle_s: float | None = None
    unsettled: int = 64 << 20

    def __post_init__(self) -> None:
        if (self.each is None) == (self.folding is None):
            raise ValueError(f"stage {self.name!r} must have exactly one of each and folding")
        if (self.journal is None) != (self.resume is None):
            raise ValueError(f"stage {self.name!r} must have both of journal and resume, or none")
        if self.idle_s is not None and (self.folding is None or self.idle_s <= 0):
            raise ValueError(f"stage {self.name!r}: idle_s must be positive, and is for folding stages only")


def chain(*stages: Stage) -> Stage:
    """Several stages as one, in one process: the hop between them is a function call.

    What a stage says that the next one does not read (a refusal, say) leaves the chain as it is. After a takeover the
    turn is computed anew from its start; the same seed gives the same answer, and the gateway cuts what it has. So what
    a folding stage says is `Settled` has no meaning in a chain, and is dropped: the chain's one message is its whole
    turn. For the same reason no stage of it is open-ended.
    """
    head, *rest = stages
    if head.each is None:
        raise ValueError(f"a chain cannot begin with the folding stage {head.name!r}")
    concurrency = min(stage.concurrency for stage in stages)
    cut = _Cut(head, rest, most=concurrency)
    each = cut.noting(head)
    for stage in rest:
        each = _through(each, stage, cut.noting(stage)) if stage.each else _folded(each, stage)
    return Stage(
        name="+".join(stage.name for stage in stages),
        reads=head.reads,
        each=cut.whole(each),
        stopped=cut.stopped,
        retry=head.retry,
        span=min(stage.span for stage in stages),
        concurrency=concurrency,
    )


class _Cut:
    """Where in a chain a turn was cut off, so that the stage which was at work has the last word, as it has by itself.

    Remembers at most `most` turns; one is forgotten when it ends.
    """

    def __init__(self, head: Stage, rest: Sequence[Stage], *, most: int) -> None:
        self._head, self._rest, self._most = head, rest, most
        self._left: OrderedDict[tuple[str, str], tuple[Stage, Message, list[Message]]] = OrderedDict()

    def noting(self, stage: Stage) -> Each:
        """`stage`, of which it is known afterwards what it was given and what it said; if it has its own last word."""
        each = stage.each
        assert each is not None
        if stage.stopped is finished:
            return each

        async def noted(message: Any) -> Stream:
            said: list[Message] = []
            try:
                async with aclosing(each(message)) as stream:
                    async for out in stream:
                        said.append(out)
                        yield out
            finally:
                self._left[message.session, message.turn] = (stage, message, said)
                if len(self._left) > self._most:
                    self._left.popitem(last=False)

        return noted

    def whole(self, each: Each) -> Each:
        """`each`, whose turns are forgotten when they end."""

        async def forgetting(message: Any) -> Stream:
            async with aclosing(each(message)) as stream:
                async for out in stream:
                    yield out
            self._left.pop((message.session, message.turn), None)

        return forgetting

    def stopped(self, message: Message, published: Sequence[Message], reason: StopReason) -> Message:
        """What the stage that was at work says; where that is for a later one of the chain, the turn's end instead."""
        known = self._left.pop((message.session, message.turn), (self._head, message, published))
        stage, given, said = known
        word = stage.stopped(given, said, reason)
        if not any(_reads(then, word) for then in self._rest):
            return word
        end = finished(message, published, reason)
        return msgspec.structs.replace(end, usage=word.usage) if isinstance(word, Done) else end


def _reads(stage: Stage, message: Message) -> bool:
    return TOPIC_OF[type(message)] is stage.reads


def _through(first: Each, then: Stage, each: Each) -> Each:
    """`first`, whose messages go through `then`, as `each`, one by one."""

    async def both(message: Any) -> Stream:
        async with aclosing(first(message)) as stream:
            async for out in stream:
                if not _reads(then, out):
                    yield out
                    continue
                async with aclosing(each(out)) as inner:
                    async for result in inner:
                        yield result

    return both


def _folded(first: Each, then: Stage) -> Each:
    """`first`, whose messages go into `then` as one stream; what `then` does not read comes before its next result."""

    async def both(message: Any) -> Stream:
        aside: list[Message] = []

        async def read() -> Stream:
            async with aclosing(first(message)) as stream:
                async for out in stream:
                    if _reads(then, out):
                        yield out
                    else:
                        aside.append(out)

        assert then.folding is not None
        async with aclosing(read()) as source, aclosing(then.folding(source)) as results:
            async for result in results:
                while aside:
                    yield aside.pop(0)
                if not isinstance(result, Settled):
                    yield result
        while aside:
            yield aside.pop(0)

    return both
