"""What calls have shown: each turn of speech once and as where nothing broke, each answer with one end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest

from apps.chaos.answers import Answers, judged_answers
from apps.chaos.audit import Audit
from apps.chaos.record import Call, Heard, Record, near
from apps.chaos.words import Broken
from pipeline.voice import RATE

Flaw = tuple[str, str]
"""(the guarantee, how it did not hold)."""


@dataclass
class Spoken:
    """The outcome of the calls. `equal` turns of `compared` have the transcript of the undisturbed run, word by word.

    `again` counts transcripts that a new owner has said once more; the gateway told of one alone. `sent_again` are the
    seconds of sound that callers have sent once more, because they had not arrived when their connection was lost.
    """

    calls: int = 0
    turns: int = 0
    words: int = 0
    lost: int = 0
    repeated: int = 0
    equal: int = 0
    compared: int = 0
    again: int = 0
    reconnects: int = 0
    sent_again: float = 0.0
    answers: Answers = field(default_factory=Answers)
    broken: list[Broken] = field(default_factory=list)


def judged_calls(undisturbed: Record, disturbed: Record, log: Audit) -> Spoken:
    """What the calls of the two runs, and the log of both, have shown."""
    found = Spoken()
    expected = {call.recording: call for call in undisturbed.calls if not _flaws_of_call(call)}
    for call in undisturbed.calls:
        flaws = [*_all(call), *judged_answers(Answers(), call, log)]
        found.broken += [Broken(f"where nothing breaks: {what}", call.label, how, ()) for what, how in flaws]
    for call in disturbed.calls:
        faults = tuple(one.label for one in near(disturbed.faults, call.began, call.ended))
        flaws = [*_all(call), *_from(found, expected.get(call.recording), call), *_logged(found, call, log)]
        flaws += judged_answers(found.answers, call, log)
        found.broken += [Broken(what, call.label, how, faults) for what, how in flaws]
        _count(found, call)
    return found


def _count(found: Spoken, call: Call) -> None:
    found.calls += 1
    found.turns += len(call.turns)
    found.reconnects += call.reconnects
    found.sent_again += call.again / RATE
    found.words += sum(len(turn.text.split()) for turn in call.turns.values())


def _all(call: Call) -> list[Flaw]:
    return [*_flaws_of_call(call), *(flaw for turn in call.turns.values() for flaw in _flaws_of_turn(turn))]


def _flaws_of_call(call: Call) -> list[Flaw]:
    """What no call may have, whatever was said in it."""
    flaws = [("a call to its end", call.error)] if call.error else []
    if call.repeated_events:
        flaws.append(("no event comes twice", f"{call.repeated_events} events have an id that was there before"))
    if any(turn.text for turn in call.turns.values()) and not call.answers:
        flaws.append(("an answer", "nothing that was said was answered"))
    return flaws


def _flaws_of_turn(turn: Heard) -> Iterable[Flaw]:
    """What no turn of speech may have."""
    counts = {
        "beginning": len(turn.starts),
        "end": len(turn.stops),
        "commit": turn.committed,
        "item": turn.added,
        "final transcript": len(turn.finals),
    }
    for name, count in counts.items():
        if count != 1:
            yield "each turn of speech once", f"{turn.item} has {count} times its {name}"
    if turn.error:
        yield "a transcript", f"{turn.item}: {turn.error}"


def _from(found: Spoken, undisturbed: Call | None, call: Call) -> Iterable[Flaw]:
    """How a call differs from the same recording where nothing broke."""
    if undisturbed is None:
        return
    for right, got in zip_longest(undisturbed.turns.values(), call.turns.values()):
        found.compared += 1
        if right is None:
            yield "the undisturbed turns", f"one more at {got.place}: {got.text!r}"
        elif got is None:
            yield "the undisturbed turns", f"none at {right.place}: {right.text!r}"
        elif (right.text, right.starts, right.stops) == (got.text, got.starts, got.stops):
            found.equal += 1
        elif right.text == got.text:
            yield "the undisturbed turns", f"at {got.place} instead of {right.place}: {got.text!r}"
        else:
            lost, repeated = words_apart(right.text, got.text)
            found.lost += lost
            found.repeated += repeated
            yield "each word once", f"{lost} lost, {repeated} too many at {got.place}: {got.text!r}, not {right.text!r}"


def words_apart(right: str, got: str) -> tuple[int, int]:
    """How many words `got` has too few and too many, compared with `right`."""
    lost = repeated = 0
    a, b = right.split(), got.split()
    for kind, i, j, k, m in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        if kind != "equal":
            lost += j - i
            repeated += m - k
    return lost, repeated


def _logged(found: Spoken, call: Call, log: Audit) -> Iterable[Flaw]:
    """What the log says of a call that no client can see: workers that heard different things."""
    for item, texts in _said_in(log.heard, call.session).items():
        found.again += len(texts) - 1
        if item not in call.turns:
            yield "no turn from its middle", f"{item} stands in the log, and is no turn: {texts[0]!r}"
        elif len(set(texts)) > 1:
            yield "the same words from each worker", f"{item} was heard as {' and as '.join(map(repr, texts))}"


def _said_in(heard: Mapping[tuple[str, str], list[str]], session: str) -> Mapping[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for (of, item), texts in heard.items():
        if of == session:
            found[item] += texts
    return found
