"""What calls have shown of spoken answers: each with one end, its transcript whole, its sound sample by sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from apps.bench.report import Spread, spread
from apps.chaos.audit import Audit, Logged, Said
from apps.chaos.record import Answer, Call, Record, Struck, gateway_at
from pipeline.voice import RATE

AFTER_S = 30.0
"""Seconds after a fault in which an answer may fall silent for it; the longest such silence is the fault's."""

Flaw = tuple[str, str]
"""(the guarantee, how it did not hold)."""


@dataclass
class Answers:
    """The outcome of spoken answers. `exact` of `sounded` have the very sound of a run where nothing breaks.

    `again` are the seconds of sound that a new owner has said once more, which the gateway left out; `put_off` are
    answers that failed with a request to come back while the log was away.
    """

    answers: int = 0
    sounded: int = 0
    exact: int = 0
    seconds: float = 0.0
    again: float = 0.0
    put_off: int = 0


def judged_answers(found: Answers, call: Call, log: Audit) -> Iterable[Flaw]:
    """What was not as it must be in the answers of `call`, and the counts of it."""
    for name, answer in call.answers.items():
        found.answers += 1
        found.put_off += answer.put_off
        found.seconds += answer.samples / RATE
        for what, how in _flaws(answer):
            yield what, f"{name}: {how}"
        said = log.said.get((call.session, name))
        if answer.put_off or said is None:
            continue
        found.again += said.copies / RATE
        for what, how in (*_logged(answer, said), *_sound(found, answer, log, (call.session, name))):
            yield what, f"{name}: {how}"


def _flaws(answer: Answer) -> Iterable[Flaw]:
    """What a client can see."""
    if len(answer.ends) != 1:
        yield "one terminal event", f"{len(answer.ends)} of them: {answer.ends}"
    elif answer.ends[0] not in ("completed", "incomplete") and not answer.put_off:
        yield "an answer", f"it ended as {answer.ends[0]}: {answer.code}"
    if (words := "".join(answer.words)) != answer.said and not answer.put_off:
        yield "the transcript as it came is the answer", f"{words!r} is not {answer.said!r}"
    if answer.pieces and answer.closed != 1:
        yield "one end of the sound", f"{answer.closed} of them"


def _logged(answer: Answer, said: Said) -> Iterable[Flaw]:
    """What the log says of it that no client can see."""
    if said.changed:
        yield "the same sentences from each worker", f"sentence {said.changed[0]} was cut in two ways"
    if sorted(said.sentences) != list(range(len(said.sentences))):
        yield "every sentence is there", f"only {sorted(said.sentences)} stand in the log"
    if said.holes:
        yield "no sample is missing", f"{said.holes} times sound is missing before what stands in the log"
    if any(answer.said[one.at : one.at + len(one.text)] != one.text for one in said.sentences.values()):
        yield "what is said is what is written", f"{[one.text for one in said.sentences.values()]}: {answer.said!r}"


def _sound(found: Answers, answer: Answer, log: Audit, name: tuple[str, str]) -> Iterable[Flaw]:
    """Whether it sounds as where nothing breaks."""
    if any(one.text for one in log.said[name].sentences.values()) and not answer.pieces:
        yield "each sample once", "nothing of it was heard"
    if (sound := log.sounds.get(name)) is None:
        return
    found.sounded += 1
    if sound.apart:
        yield "each sample once", sound.apart
    else:
        found.exact += 1


def silences(record: Record, log: Audit) -> Mapping[str, Spread]:
    """Seconds for which a spoken answer fell silent for a fault, by the fault's name; 0 where nobody heard of it."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for struck in record.faults:
        for call in record.calls:
            for name, answer in call.answers.items():
                if _was_struck(struck, call, answer, log.turns.get((call.session, name))):
                    rests = [rest for at, rest in answer.silences() if struck.at < at < struck.at + AFTER_S]
                    found[struck.fault.name].append(max(rests, default=0.0))
    return {name: spread(seconds) for name, seconds in sorted(found.items())}


def _was_struck(struck: Struck, call: Call, answer: Answer, logged: Logged | None) -> bool:
    """Whether it was being heard, and the fault was its worker's, its gateway's, or everybody's."""
    if not answer.pieces or not answer.pieces[0].at <= struck.at <= answer.pieces[-1].at:
        return False
    if struck.gateway is not None:
        return gateway_at(call.via, struck.at) == struck.gateway
    return struck.parts is None or (logged is not None and logged.part in struck.parts)
