"""Calls: every way in which a turn of speech, a word or an answer can get lost or come twice is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.chaos.audit import Audit
from apps.chaos.record import Answer, Call, Heard, Record
from apps.chaos.spoken import judged_calls, words_apart
from tests.apps.chaos.runs import struck

SAID = ("how much is a tent", "do you ship to france")


def heard(number: int, text: str) -> Heard:
    """A turn that was heard once."""
    at = 5000 * number
    return Heard(f"item_{number}", at / 1000, [at], [at + 2000], 1, 1, [text], [text])


def call(session: str = "sess_1") -> Call:
    """A call in which all went well."""
    turns = {turn.item: turn for turn in (heard(n, text) for n, text in enumerate(SAID))}
    answers = {"resp_0": Answer(["completed"]), "resp_1": Answer(["incomplete"])}
    return Call(0, 1, began=0.0, session=session, turns=turns, answers=answers, ended=12.0)


def log_of(*calls: Call) -> Audit:
    """The log of these calls."""
    log = Audit()
    for one in calls:
        for turn in one.turns.values():
            log.heard[one.session, turn.item] = list(turn.finals)
    return log


def test_a_call_as_where_nothing_breaks_is_well() -> None:
    """Also if a new owner has said something again, for the client was told once."""
    right, got = call("sess_0"), call()
    log = log_of(right, got)
    log.heard["sess_1", "item_1"].append(SAID[1])
    found = judged_calls(Record(calls=[right]), Record(calls=[got], faults=[struck(3.0)]), log)

    assert not found.broken
    assert (found.calls, found.turns, found.words, found.answers.answers, found.again) == (1, 2, 10, 2, 1)
    assert (found.equal, found.compared, found.lost, found.repeated) == (2, 2, 0, 0)


def _of(item: str) -> Callable[[Call], Heard]:
    return lambda one: one.turns[item]


@pytest.mark.parametrize(
    ("change", "guarantee", "how"),
    [
        (lambda one: one.turns["item_0"].starts.append(7), "each turn of speech once", "2 times its beginning"),
        (lambda one: one.turns["item_0"].stops.clear(), "each turn of speech once", "0 times its end"),
        (lambda one: setattr(one.turns["item_0"], "committed", 2), "each turn of speech once", "2 times its commit"),
        (lambda one: setattr(one.turns["item_0"], "added", 0), "each turn of speech once", "0 times its item"),
        (lambda one: one.turns["item_0"].finals.append("x"), "each turn of speech once", "2 times its final"),
        (lambda one: setattr(one.turns["item_0"], "error", "deaf"), "a transcript", "deaf"),
        (lambda one: setattr(one, "error", "hung up"), "a call to its end", "hung up"),
        (lambda one: setattr(one, "repeated_events", 3), "no event comes twice", "3 events"),
        (lambda one: one.answers["resp_0"].ends.append("completed"), "one terminal event", "resp_0: 2 of them"),
        (lambda one: one.answers["resp_0"].ends.clear(), "one terminal event", "resp_0: 0 of them"),
        (lambda one: one.answers.update(resp_0=Answer(["failed"])), "an answer", "ended as failed"),
        (lambda one: one.answers.clear(), "an answer", "nothing that was said was answered"),
        (lambda one: one.turns.pop("item_1"), "the undisturbed turns", "none at 5000 to 7000 ms"),
        (lambda one: one.turns.update(x=heard(2, "more")), "the undisturbed turns", "one more at 10000 to 12000"),
        (lambda one: one.turns["item_1"].starts.__setitem__(0, 5300), "the undisturbed turns", "at 5300 to 7000"),
        (lambda one: one.turns["item_1"].finals.__setitem__(0, "do you ship"), "each word once", "2 lost, 0 too many"),
        (lambda one: one.turns["item_1"].finals.__setitem__(0, SAID[1] * 2), "each word once", "0 lost, 4 too many"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_must_be_is_named(change: Callable[[Call], object], guarantee: str, how: str) -> None:
    """With the guarantee, the call, and the fault about it."""
    right, got = call("sess_0"), call()
    log = log_of(right, call())
    change(got)
    got.turns.pop("nothing", None)
    log.heard.update(log_of(got).heard)
    found = judged_calls(Record(calls=[right]), Record(calls=[got], faults=[struck(3.0)]), log)

    named = {(one.guarantee, how in one.how, one.who, one.faults) for one in found.broken}
    fault = "fault 7 (kill llm of llm-0[99])"
    assert (guarantee, True, "recording 0 of caller 1 (session sess_1)", (fault,)) in named


def test_what_no_client_sees_is_found_in_the_log() -> None:
    """A turn that begins in the middle of another, and two owners that hear different words."""
    right, got = call("sess_0"), call()
    log = log_of(right, got)
    log.heard["sess_1", "item_fragment"] = ["to france"]
    log.heard["sess_1", "item_0"].append("how much is the tent")
    log.heard["sess_9", "item_0"] = ["of another run"]
    found = judged_calls(Record(calls=[right]), Record(calls=[got]), log)

    assert {one.guarantee for one in found.broken} == {
        "no turn from its middle",
        "the same words from each worker",
    }
    assert "heard as 'how much is a tent' and as 'how much is the tent'" in str(found.broken)


def test_a_run_that_is_not_well_where_nothing_breaks_says_so() -> None:
    """And nothing is compared with a call that did not come to its end."""
    right, got = call("sess_0"), call()
    right.error = "nobody answers"
    found = judged_calls(Record(calls=[right]), Record(calls=[got]), log_of(right, got))

    assert [one.guarantee for one in found.broken] == ["where nothing breaks: a call to its end"]
    assert found.compared == 0


def test_words_are_counted_that_are_missing_and_too_many() -> None:
    """A word that was heard otherwise is one of each."""
    assert words_apart("a b c d", "a b c d") == (0, 0)
    assert words_apart("a b c d", "a d") == (2, 0)
    assert words_apart("a b", "a b a b") == (0, 2)
    assert words_apart("a b c", "a x c") == (1, 1)
