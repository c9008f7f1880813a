"""What a run has shown: guarantees kept or broken, each break with its turn and the faults about it, and the gaps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from apps.bench.report import Spread, spread
from apps.chaos.audit import Audit, Logged
from apps.chaos.plan import Kind
from apps.chaos.record import Record, Struck, Turn, near
from apps.chaos.spoken import Spoken, judged_calls
from apps.chaos.words import Broken
from apps.parts import ALONE

ON_ITS_WAY_S = 1.0
"""Text that was published before its worker's death may reach the client so much later, where much else runs. So a gap
is the longest rest of those that begin by then; an answer that stood still for so long before had another reason."""
ALIKE = 0.75
"""Rests that differ by less are alike, and the first of them is the fault's."""
SHOWN = 24
SETTLE_S = 1.0


class Difference(NamedTuple):
    """Characters of an answer that are missing, and that are too many."""

    lost: int
    repeated: int


class Gap(NamedTuple):
    """How long an answer stood still for a fault, from text to text; `after` is the part of it after the fault."""

    fault: Struck
    turn: Turn
    seconds: float
    after: float


@dataclass
class Verdict:
    """The outcome. `ends` counts turns by how many terminal events they had; gaps are by the fault's name.

    `put_off` are turns that failed with a request to come back while the log was away, and were asked again. `waits`
    are of turns that had not begun when they were struck: seconds until their first text.
    """

    turns: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0
    tokens_lost: int = 0
    tokens_copied: int = 0
    put_off: int = 0
    equal: int = 0
    compared: int = 0
    fenced: int = 0
    broken: list[Broken] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    waits: list[Gap] = field(default_factory=list)
    spoken: Spoken = field(default_factory=Spoken)

    def by_fault(self, gaps: Iterable[Gap]) -> dict[str, Spread]:
        """Percentiles of `gaps` for each sort of fault."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for gap in gaps:
            found[gap.fault.fault.name].append(gap.seconds)
        return {name: spread(seconds) for name, seconds in sorted(found.items())}


def judged(undisturbed: Record, disturbed: Record, log: Audit) -> Verdict:
    """What the two runs, and the log of both, have shown."""
    verdict = Verdict(turns=len(disturbed.turns), fenced=log.fenced)
    expected = {turn.name: turn for turn in undisturbed.turns if turn.complete}
    for turn in disturbed.turns:
        logged = log.turns.get((turn.session, turn.response)) or Logged()
        faults = tuple(one.label for one in near(disturbed.faults, turn.asked, turn.ended))
        for guarantee, how in _breaks(verdict, turn, expected.get(turn.name), logged):
            verdict.broken.append(Broken(guarantee, turn.label, how, faults))
    for trouble in disturbed.troubles:
        verdict.broken.append(Broken("what is struck comes back", trouble, "see its logs", ()))
    if disturbed.repeated_events:
        verdict.broken.append(Broken("no event comes twice", f"{disturbed.repeated_events} events", "same id", ()))
    for turn in undisturbed.turns:
        if not turn.complete:
            verdict.broken.append(
                Broken("an answer where nothing breaks", turn.label, turn.error or str(turn.ends), ())
            )
    verdict.broken += _silent(disturbed, log)
    verdict.spoken = judged_calls(undisturbed, disturbed, log)
    verdict.broken += verdict.spoken.broken
    _measure(verdict, disturbed, log)
    return verdict


def _breaks(verdict: Verdict, turn: Turn, undisturbed: Turn | None, logged: Logged) -> Iterable[tuple[str, str]]:
    """What was not as it must be, and the counts of it."""
    verdict.ends[len(turn.ends)] += 1
    verdict.statuses[turn.ends[0] if turn.ends else "none"] += 1
    verdict.tokens_copied += logged.copies
    verdict.put_off += turn.put_off
    if len(turn.ends) != 1:
        yield "one terminal event", f"{len(turn.ends)} of them; {turn.error or turn.ends}"
    elif not (turn.complete or turn.put_off):
        yield "an answer", f"it ended as {turn.ends[0]}: {turn.error}"
    if missing := logged.missing:
        verdict.tokens_lost += missing
        yield "no token is lost", f"{missing} of {logged.done[0]} do not stand in the log"
    if logged.changed:
        yield "the same tokens from each worker", f"token {logged.changed[0]} was computed as two different ones"
    if not turn.complete:
        return
    seen = difference(turn.said, turn.text)
    verdict.lost += seen.lost
    verdict.repeated += seen.repeated
    if seen != Difference(0, 0):
        yield "each character once", f"{seen.lost} lost, {seen.repeated} repeated: {told_apart(turn.said, turn.text)}"
    if undisturbed is None:
        return
    verdict.compared += 1
    if (turn.text, turn.tokens) == (undisturbed.text, undisturbed.tokens):
        verdict.equal += 1
    else:
        apart = told_apart(undisturbed.text, turn.text)
        yield "the undisturbed answer", f"{turn.tokens} tokens instead of {undisturbed.tokens}; {apart}"


def _silent(record: Record, log: Audit) -> list[Broken]:
    """Turns that were acknowledged in the log, of clients of this run, and never ended there."""
    sessions = {turn.session for turn in record.turns} | {call.session for call in record.calls}
    return [
        Broken("what is acknowledged ends", f"session {session}, turn {turn}", "no end of it stands in the log", ())
        for (session, turn), logged in log.turns.items()
        if session in sessions and logged.acknowledged and not logged.finished
    ]


def difference(right: str, got: str) -> Difference:
    """What `got` has too few and too many, compared with `right`."""
    if right == got:
        return Difference(0, 0)
    lost = repeated = 0
    for kind, i, j, k, m in SequenceMatcher(a=right, b=got, autojunk=False).get_opcodes():
        if kind != "equal":
            lost += j - i
            repeated += m - k
    return Difference(lost, repeated)


def told_apart(right: str, got: str) -> str:
    """Where two texts part, in words."""
    at = next((n for n, (a, b) in enumerate(zip(right, got, strict=False)) if a != b), min(len(right), len(got)))
    if len(right) == len(got) == at:
        return "the texts are the same"
    return f"from character {at} on {got[at : at + SHOWN]!r} instead of {right[at : at + SHOWN]!r}"


# ---- gaps --------------------------------------------------------------------------------------------------------


def _measure(verdict: Verdict, record: Record, log: Audit) -> None:
    for struck in record.faults:
        if struck.fault.stage in ALONE:
            continue
        for turn in record.turns:
            logged = log.turns.get((turn.session, turn.response))
            if not was_struck(struck, turn, logged):
                continue
            if (gap := gap_of(struck, turn)) is not None:
                verdict.gaps.append(gap)
            elif (wait := wait_of(struck, turn)) is not None:
                verdict.waits.append(wait)


def was_struck(struck: Struck, turn: Turn, logged: Logged | None) -> bool:
    """Whether the fault concerned this turn: its worker, its gateway, or everybody."""
    if struck.gateway is not None:
        return turn.gateway(struck.at) == struck.gateway
    if struck.parts is None:
        return True
    return logged is not None and logged.part in struck.parts


def gap_of(struck: Struck, turn: Turn) -> Gap | None:
    """How long the answer stood still, if it was streaming when it was struck: then the text stage is done with it."""
    if struck.fault.stage == "text":
        return None
    times = [piece.at for piece in turn.pieces]
    last = max((at for at in times if at <= struck.at), default=None)
    if last is None or last < struck.at - ON_ITS_WAY_S:
        return None
    end = struck.at + ON_ITS_WAY_S
    if struck.fault.kind is Kind.REBALANCE:  # it comes some time after it was asked for
        end = struck.until or float("inf")
    rests = [(later - at, later) for at, later in pairwise(times) if later > struck.at and at <= end]
    if not rests:
        return None
    seconds = max(rest for rest, _ in rests)
    over = next(at for rest, at in rests if rest >= ALIKE * seconds)
    return Gap(struck, turn, seconds, over - struck.at)


def wait_of(struck: Struck, turn: Turn) -> Gap | None:
    """How long the answer took to begin, if it was asked for when the fault was there or a moment before."""
    if not turn.pieces or turn.pieces[0].at <= struck.at:
        return None
    if turn.asked > struck.at + SETTLE_S:
        return None
    since = max(turn.asked, struck.at)
    return Gap(struck, turn, turn.pieces[0].at - since, turn.pieces[0].at - since)


def takeovers(gaps: Iterable[Gap]) -> dict[str, Spread]:
    """Seconds from kill -9 of a worker to the next text, for each stage."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for gap in gaps:
        if gap.fault.fault.kind is Kind.KILL:
            found[gap.fault.fault.stage].append(gap.after)
    return {stage: spread(seconds) for stage, seconds in found.items()}


def steps(gaps: Iterable[Gap], record: Record, log: Audit) -> dict[str, Spread]:
    """What the takeovers of the LLM stage were made of, by the log's times."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for gap in gaps:
        if (gap.fault.fault.kind, gap.fault.fault.stage) != (Kind.KILL, "llm"):
            continue
        killed = record.zero + gap.fault.at
        owners = log.turns[gap.turn.session, gap.turn.response].owners
        if (heir := next((one for one in owners if one.claimed > killed), None)) is not None:
            found["from the kill to the standby's claim"].append(heir.claimed - killed)
            found["to its first token in the log"].append(heir.spoke - heir.claimed)
            found["to the client"].append(max(0.0, killed + gap.after - heir.spoke))
    return {name: spread(seconds) for name, seconds in found.items()}
