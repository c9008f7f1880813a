"""Runs made up for the tests: turns with their text and times, and the log that goes with them."""

from __future__ import annotations

from apps.chaos.audit import Audit, Logged
from apps.chaos.plan import Fault, Kind, Question
from apps.chaos.record import Piece, Record, Struck, Turn
from pipeline.messages import Finished

QUESTION = Question("How much is a tent?", {"temperature": 0.0, "seed": 1})
ANSWER = ("A tent ", "costs ", "90 pounds.")


def turn(
    name: str = "0.0",
    pieces: tuple[str, ...] = ANSWER,
    *,
    asked: float = 0.0,
    said: str | None = None,
    pace: float = 1.0,
) -> Turn:
    """A turn that went well: a piece of text each `pace` seconds, the first after one, and its end at the last."""
    times = [asked + pace * (n + 1) for n in range(len(pieces))]
    return Turn(
        name,
        client=0,
        question=QUESTION,
        asked=asked,
        session="sess_1",
        response=f"resp_{name}",
        pieces=[Piece(at, text) for at, text in zip(times, pieces, strict=True)],
        ends=["completed"],
        said="".join(pieces) if said is None else said,
        tokens=len(pieces),
        ended=times[-1] if times else asked,
        via=[(asked, 0)],
    )


def record(*turns: Turn, faults: tuple[Struck, ...] = ()) -> Record:
    """A run."""
    return Record(turns=list(turns), faults=list(faults), seconds=60.0)


def struck(at: float, kind: Kind = Kind.KILL, stage: str = "llm", *, parts: frozenset[int] | None = None) -> Struck:
    """A fault that was over after two seconds."""
    return Struck(Fault(7, at, kind, stage), at, victim="llm-0[99]", until=at + 2.0, parts=parts)


def log_of(*turns: Turn, part: int = 3) -> Audit:
    """The log of turns that went well, all in one partition."""
    found = Audit()
    for one in turns:
        found.turns[one.session, one.response] = Logged(
            part=part,
            asked=1,
            tokens=dict(enumerate(range(one.tokens))),
            done=[one.tokens],
            finished=[Finished(one.session, one.response, status="completed")],
            acknowledged=True,
        )
    return found
