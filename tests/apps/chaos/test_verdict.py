"""The verdict: each guarantee that breaks is found, and named with its turn, its session and the fault about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.chaos.audit import Audit
from apps.chaos.plan import Kind
from apps.chaos.record import Call, Record, Turn
from apps.chaos.verdict import Difference, Verdict, difference, judged, takeovers
from tests.apps.chaos.runs import ANSWER, log_of, record, struck, turn


def verdict_of(disturbed: Turn, log: Audit | None = None) -> Verdict:
    """The verdict on one turn, whose undisturbed answer is the usual one."""
    calm = turn()
    run = record(disturbed, faults=(struck(1.5),))
    return judged(record(calm), run, log_of(disturbed) if log is None else log)


def test_a_run_in_which_all_went_well_breaks_nothing() -> None:
    """The same answer, one end, all text once."""
    verdict = verdict_of(turn())
    assert not verdict.broken
    assert (verdict.equal, verdict.compared, verdict.turns) == (1, 1, 1)
    assert dict(verdict.ends) == {1: 1}


def no_end(one: Turn) -> None:
    """Nothing ended it."""
    one.ends.clear()
    one.error = "no end within 90 s"


def failed(one: Turn) -> None:
    """It ended, but not as an answer does."""
    one.ends = ["failed"]


def test_a_turn_that_is_put_off_while_the_log_is_away_is_no_break() -> None:
    """It was told in time, with one end and a request to come back; it is counted, and asked again."""
    put_off = turn(pieces=())
    put_off.ends, put_off.code = ["failed"], "log_unavailable"
    verdict = verdict_of(put_off, log_of(turn()))
    assert not verdict.broken
    assert (verdict.put_off, verdict.compared) == (1, 0)


HARMS: dict[str, tuple[str, Callable[[Turn], object]]] = {
    "two ends": ("one terminal event", lambda one: one.ends.append("completed")),
    "no end": ("one terminal event", no_end),
    "failed": ("an answer", failed),
    "a piece is lost": ("each character once", lambda one: one.pieces.pop(1)),
    "a piece comes twice": ("each character once", lambda one: one.pieces.insert(1, one.pieces[1])),
    "another answer": ("the undisturbed answer", lambda one: setattr(one, "tokens", 4)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_breaks_is_found_and_named(harm: str) -> None:
    """The guarantee is told with the turn, its session and response, and the fault that was there."""
    guarantee, do = HARMS[harm]
    hurt = turn()
    do(hurt)
    broken = {one.guarantee: one for one in verdict_of(hurt, log_of(turn())).broken}
    assert guarantee in broken
    found = broken[guarantee]
    assert "turn 0.0" in found.who
    assert "sess_1" in found.who
    assert "resp_0.0" in found.who
    assert found.faults == ("fault 7 (kill llm of llm-0[99])",)


def test_lost_and_repeated_text_is_counted() -> None:
    """Characters too few and too many, each for itself."""
    assert difference("abcdef", "abef") == Difference(lost=2, repeated=0)
    assert difference("abcdef", "abcdcdef") == Difference(lost=0, repeated=2)
    hurt = turn()
    hurt.pieces.insert(1, hurt.pieces[1])
    verdict = verdict_of(hurt)
    assert (verdict.lost, verdict.repeated) == (0, len(ANSWER[1]))


def test_an_answer_that_differs_is_told_where() -> None:
    """Whoever looks for a near-tie finds the first character that is another one."""
    other = turn(pieces=("A tent ", "weighs ", "90 pounds."))
    (broken,) = verdict_of(other).broken
    assert broken.guarantee == "the undisturbed answer"
    assert "from character 7 on 'weighs 90 pounds.' instead of 'costs 90 pounds.'" in broken.how


def test_a_token_that_is_not_in_the_log_is_lost() -> None:
    """The end counts more tokens than stand there."""
    log = log_of(turn())
    del log.turns["sess_1", "resp_0.0"].tokens[1]
    verdict = verdict_of(turn(), log)
    assert verdict.tokens_lost == 1
    assert [one.guarantee for one in verdict.broken] == ["no token is lost"]


def test_a_token_that_two_workers_computed_differently_is_told() -> None:
    """Nobody saw it, for the first one counted; the next takeover may show it."""
    log = log_of(turn())
    log.turns["sess_1", "resp_0.0"].changed.append(2)
    assert [one.guarantee for one in verdict_of(turn(), log).broken] == ["the same tokens from each worker"]


def test_what_was_acknowledged_must_end_in_the_log() -> None:
    """Also a turn whose client never heard of it."""
    log = log_of(turn())
    log.turns["sess_1", "resp_unheard"].acknowledged = True
    (broken,) = verdict_of(turn(), log).broken
    assert (broken.guarantee, broken.who) == ("what is acknowledged ends", "session sess_1, turn resp_unheard")


@pytest.mark.parametrize(
    ("trouble", "guarantee"),
    [
        (Record(troubles=["client 3 cannot open a session"]), "what is struck comes back"),
        (Record(repeated_events=2), "no event comes twice"),
    ],
    ids=["a session is lost", "events come twice"],
)
def test_what_no_turn_has_is_told_too(trouble: Record, guarantee: str) -> None:
    """Clients meet it between their turns."""
    assert [one.guarantee for one in judged(record(), trouble, Audit()).broken] == [guarantee]


def test_the_gap_is_from_the_last_text_before_to_the_first_after() -> None:
    """And what of it is after the signal is the takeover."""
    streaming = turn(pieces=ANSWER * 2)
    fault = struck(2.5, parts=frozenset({3}))
    verdict = judged(record(), record(streaming, faults=(fault,)), log_of(streaming))
    (gap,) = verdict.gaps
    assert (gap.seconds, gap.after) == (1.0, 0.5)
    assert takeovers(verdict.gaps)["llm"].p50 == 0.5
    assert list(verdict.by_fault(verdict.gaps)) == ["kill llm"]


def test_text_that_was_on_its_way_is_not_the_next() -> None:
    """A piece a moment after the signal was published before it; the rest that counts is the longest that follows."""
    streaming = turn(pieces=ANSWER * 2)
    streaming.pieces[3:] = [piece._replace(at=piece.at + 2.0) for piece in streaming.pieces[3:]]
    verdict = judged(record(), record(streaming, faults=(struck(2.9),)), log_of(streaming))
    assert verdict.gaps[0].seconds == 3.0
    assert verdict.gaps[0].after == pytest.approx(3.1)


def test_an_answer_that_stood_still_already_is_left_out() -> None:
    """It waits for something else, which was struck before."""
    streaming = turn(pieces=ANSWER * 2, pace=3.0)
    verdict = judged(record(), record(streaming, faults=(struck(8.5),)), log_of(streaming))
    assert not verdict.gaps


def test_only_answers_of_the_worker_that_was_struck_have_gaps() -> None:
    """Another's partition, and an answer that was over or had not begun, are left out."""
    streaming = turn(pieces=ANSWER * 2)
    elsewhere = struck(2.5, parts=frozenset({1, 2}))
    over, early = struck(6.5, parts=frozenset({3})), struck(0.5, parts=frozenset({3}))
    verdict = judged(record(), record(streaming, faults=(elsewhere, over, early)), log_of(streaming, part=3))
    assert not verdict.gaps
    assert [(wait.fault, wait.seconds) for wait in verdict.waits] == [(early, 0.5)]


def test_stages_of_voice_keep_no_written_answer_waiting() -> None:
    """A written answer that rests a moment when one of their workers dies does so for another reason."""
    streaming = turn(pieces=ANSWER * 2)
    faults = tuple(struck(at, stage=stage) for at in (0.5, 2.5) for stage in ("speech", "speak"))
    verdict = judged(record(), record(streaming, faults=faults), log_of(streaming))
    assert (verdict.gaps, verdict.waits) == ([], [])


def test_a_call_that_was_acknowledged_must_end_in_the_log() -> None:
    """Its answers are those of its session."""
    log = log_of()
    log.turns["sess_call", "resp_9"].acknowledged = True
    call = Call(0, 0, 0.0, "sess_call")
    (broken,) = judged(record(), Record(calls=[call]), log).broken
    assert (broken.guarantee, broken.who) == ("what is acknowledged ends", "session sess_call, turn resp_9")


def test_a_gateway_concerns_those_who_were_connected_to_it() -> None:
    """A client that had moved on has no gap."""
    stayed, moved = turn("0.0", ANSWER * 2), turn("1.0", ANSWER * 2)
    moved.via.append((2.2, 1))
    fault = struck(2.5, Kind.GATEWAY, "")
    fault.gateway = 0
    verdict = judged(record(), record(stayed, moved, faults=(fault,)), log_of(stayed, moved))
    assert [gap.turn for gap in verdict.gaps] == [stayed]


def test_the_text_stage_is_done_with_an_answer_that_streams() -> None:
    """Whoever strikes it strikes those that have not begun."""
    streaming, waiting = turn("0.0", ANSWER * 2), turn("1.0", asked=2.4)
    verdict = judged(record(), record(streaming, waiting, faults=(struck(2.5, stage="text"),)), log_of(streaming))
    assert not verdict.gaps
    assert [wait.turn for wait in verdict.waits] == [waiting]


def test_an_answer_that_fails_without_any_fault_is_told() -> None:
    """There is nothing to compare with then."""
    calm = turn()
    calm.ends = ["failed"]
    (broken,) = judged(record(calm), record(), Audit()).broken
    assert broken.guarantee == "an answer where nothing breaks"
    assert "turn 0.0" in broken.who


def test_a_rebalance_counts_the_longest_rest_while_it_lasted() -> None:
    """It comes some time after it was asked for."""
    streaming = turn(pieces=ANSWER * 4)
    streaming.pieces[7:] = [piece._replace(at=piece.at + 0.8) for piece in streaming.pieces[7:]]
    fault = struck(5.5, Kind.REBALANCE)
    verdict = judged(record(), record(streaming, faults=(fault,)), log_of(streaming))
    assert verdict.gaps[0].seconds == pytest.approx(1.8)
