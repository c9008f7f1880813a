"""One response on its way, whatever the log brings."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
from openai.types.responses.response_text_delta_event import Logprob as LogprobsOfTheApi

from apps.gateway.account import Position
from apps.gateway.answer import Answer, Running
from apps.gateway.cursor import Cursor
from apps.gateway.held import MOST_HELD
from apps.gateway.outgoing import Outgoing
from pipeline.errors import BusUnavailable, MessageTooLarge
from pipeline.headers import DEADLINE, REPLY_TO, TENANT, TRACE, TURN
from pipeline.messages import Delta, Finished, Likelihood, Problem
from pipeline.stage import LATE
from pipeline.topics import REPLIES, TURNS
from tests.apps.gateway.desk import PARTITION, Desk, types
from tests.apps.gateway.harness import text_of

DOWN = BusUnavailable("nowhere", "test")


def test_a_turn_is_complete_in_itself() -> None:
    """A turn carries the conversation, a seed, a model only if one was asked for, and headers that bring it home."""
    desk = Desk(instructions="Be kind.", turn_timeout_s=30.0)

    turn = desk.ask("hi")

    (headers,) = desk.headers
    assert [(u.role, u.text) for u in turn.conversation] == [("system", "Be kind."), ("user", "hi")]
    assert turn.sampling.seed > 0
    assert turn.model is None
    assert (headers[REPLY_TO], headers[TURN], headers[TENANT]) == (str(PARTITION), turn.turn, "default")
    assert 29 < float(headers[DEADLINE]) - time.time() < 31
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers[TRACE])


def test_seeds_differ_unless_given() -> None:
    """Without a seed each turn draws another one; a given one is kept."""
    desk = Desk()
    seeds = []
    for options in ({}, {}, {"seed": 5}):
        turn = desk.ask("hi", **options)
        seeds.append(turn.sampling.seed)
        desk.answer(turn)

    assert seeds[0] != seeds[1]
    assert seeds[2] == 5


def test_repeated_text_is_cut() -> None:
    """After a takeover the same text comes again, in other pieces; the client sees each character once."""
    desk = Desk()
    turn = desk.ask()

    desk.delta(turn, 0, "one two")
    again = desk.delta(turn, 0, "one ")
    more = desk.delta(turn, 4, "two three")
    response = desk.finish(turn, length=13)[-1]["response"]

    assert again == []
    assert [event["delta"] for event in more] == [" three"]
    assert text_of(response) == "one two three"


def test_a_gap_fails_the_turn_plainly() -> None:
    """Missing text ends the turn as failed, tells the stages, and what comes later is not shown."""
    desk = Desk()
    turn = desk.ask()
    desk.delta(turn, 0, "one ")

    told = desk.delta(turn, 9, "three")
    late = desk.delta(turn, 4, "two ") + desk.finish(turn, length=13)

    response = told[-1]["response"]
    assert (response["status"], response["status_details"]["error"]["code"]) == ("failed", "answer_incomplete")
    assert text_of(response) == "one "
    assert late == []
    assert [cancel.turn for cancel in desk.cancels] == [turn.turn]


def test_text_missing_at_the_end_fails_the_turn() -> None:
    """An end that tells of more text than was seen is no completed answer."""
    desk = Desk()
    turn = desk.ask()
    desk.delta(turn, 0, "one ")

    assert desk.finish(turn, length=9)[-1]["response"]["status"] == "failed"


def test_only_the_first_end_counts() -> None:
    """A second terminal event, and text after the first, are not told."""
    desk = Desk()
    turn = desk.ask()
    desk.answer(turn)

    assert desk.finish(turn) == []
    assert desk.finish(turn, status="failed") == []
    assert desk.delta(turn, 3, "more") == []


def test_an_answer_without_text_is_closed_properly() -> None:
    """A completed answer of no text has an empty item, begun and ended."""
    desk = Desk()
    turn = desk.ask()

    told = desk.finish(turn, length=0)

    assert text_of(told[-1]["response"]) == ""
    assert types(told)[0] == "response.output_item.added"


@pytest.mark.parametrize("status", ["failed", "cancelled", "incomplete"])
def test_a_turn_that_ends_before_its_first_text_has_no_item(status: str) -> None:
    """Nothing is added to the conversation by a turn that said nothing."""
    desk = Desk()
    turn = desk.ask()

    told = desk.finish(turn, status=status, reason=None)

    assert types(told) == ["response.done"]
    assert told[0]["response"]["output"] == []
    assert len(desk.session.conversation) == 1


def test_the_end_says_why() -> None:
    """Each way to end has the status_details that clients look at."""
    details = []
    for fields in (
        {"status": "completed", "length": 0},
        {"status": "incomplete", "reason": "length"},
        {"status": "failed", "reason": "deadline", "problem": LATE},
        {"status": "cancelled", "reason": "cancelled"},
        {"status": "failed", "reason": None, "problem": Problem("overloaded", "busy", retry_after=2.5)},
        {"status": "failed", "reason": None, "problem": Problem("context_length_exceeded", "long", param="input")},
        {"status": "failed", "reason": None},
    ):
        desk = Desk()
        details.append(desk.finish(desk.ask(), **fields)[-1]["response"]["status_details"])

    assert details[0] == {"type": "completed"}
    assert details[1] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert details[2] == {
        "type": "failed",
        "error": {
            "type": "server_error",
            "code": "deadline_exceeded",
            "message": "the answer was not ready in time",
        },
    }
    assert details[3] == {"type": "cancelled", "reason": "client_cancelled"}
    assert details[4]["error"] == {
        "type": "rate_limit_error",
        "code": "overloaded",
        "message": "busy",
        "retry_after": 2.5,
    }
    assert details[5]["error"]["type"] == "invalid_request_error"
    assert details[6]["error"]["type"] == "server_error"


def test_usage_is_told() -> None:
    """Tokens in, out and cached stand in the response."""
    desk = Desk()

    usage = desk.answer(desk.ask())["usage"]

    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)
    assert usage["input_token_details"]["cached_tokens"] == 2


def test_records_before_the_acknowledgement_wait_for_it() -> None:
    """A stage may be faster than the log brings back `response.created`; the client sees that first all the same."""
    desk = Desk()
    desk.say("hi")
    desk.session.receive(desk.codec.receive('{"type": "response.create"}'))
    turn, acknowledgement = (out.message for out in desk.session.outgoing())
    assert turn.turn == acknowledgement.turn

    early = desk.read(Delta("sess_1", turn.turn, at=0, text="yes", index=1))
    early += desk.read(Finished("sess_1", turn.turn, status="completed", length=3))
    told = desk.read(acknowledgement)

    assert early == []
    assert types(told)[0] == "response.created"
    assert types(told)[-1] == "response.done"
    assert told[-1]["response"]["status"] == "completed"


def test_what_waits_is_bounded() -> None:
    """Too many early records cost the answer, not the memory."""
    desk = Desk()
    desk.session.receive(desk.codec.receive('{"type": "response.create"}'))
    turn, acknowledgement = (out.message for out in desk.session.outgoing())

    for at in range(MOST_HELD + 10):
        desk.read(Delta("sess_1", turn.turn, at=at, text="x", index=1))
    desk.read(Finished("sess_1", turn.turn, status="completed", length=MOST_HELD + 10))
    told = desk.read(acknowledgement)

    assert told[-1]["response"]["status"] == "failed"


def test_event_ids_tell_where_the_record_stands() -> None:
    """An event's id is made of partition, offset, its number in the record, and where to begin to read."""
    desk = Desk()
    turn = desk.ask()

    told = desk.delta(turn, 0, "x")

    read = desk.session.account.stamp.read
    assert [read(event["event_id"]) for event in told] == [
        Cursor(PARTITION, desk.offset, number, base=1) for number in range(4)
    ]


def test_cancel_goes_to_the_stages_and_they_end_the_turn() -> None:
    """A cancel is passed on once; the end that the stages tell is the response's."""
    desk = Desk()
    turn = desk.ask()
    desk.delta(turn, 0, "one")

    assert desk.send("response.cancel", response_id=turn.turn) == []
    assert desk.send("response.cancel") == []
    told = desk.finish(turn, status="cancelled", reason="cancelled", length=3)

    assert [(cancel.turn, cancel.reason) for cancel in desk.cancels] == [(turn.turn, "client_cancelled")]
    assert told[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert desk.session.conversation.get(told[-1]["response"]["output"][0]["id"]) is not None
    assert desk.answer(desk.ask())["status"] == "completed"


def test_a_cancel_that_nobody_hears_ends_all_the_same() -> None:
    """Where no stage answers a cancel, the gateway ends the turn after some seconds."""
    desk = Desk(slack_s=5.0)
    desk.ask()
    desk.send("response.cancel")

    assert desk.later(4.0) == []
    told = desk.later(6.0)

    assert [event["response"]["status"] for event in told] == ["cancelled"]
    assert desk.later(60.0) == []


def test_a_turn_that_nobody_ends_fails_after_its_deadline() -> None:
    """Every turn ends: after its deadline and some seconds the gateway ends it and tells the stages."""
    desk = Desk(turn_timeout_s=30.0, slack_s=5.0)
    turn = desk.ask()
    desk.delta(turn, 0, "one")

    assert desk.later(34.0) == []
    told = desk.later(36.0)

    response = told[-1]["response"]
    assert (response["status"], response["status_details"]["error"]["code"]) == ("failed", "deadline_exceeded")
    assert [cancel.turn for cancel in desk.cancels] == [turn.turn]


def test_a_turn_that_does_not_reach_the_stages_fails_once() -> None:
    """Where the turn is not delivered, the client gets one failed response."""
    desk = Desk()
    turn = desk.ask()

    desk.session.undelivered(Outgoing(TURNS, turn, "k"), DOWN)
    told = desk.pump()

    assert types(told) == ["response.done"]
    assert told[0]["response"]["status_details"]["error"]["code"] == "log_unavailable"
    assert desk.finish(turn) == []


def test_a_turn_too_large_for_the_log_names_its_length() -> None:
    """A turn that the topic does not take is the client's to shorten."""
    desk = Desk()
    turn = desk.ask()

    desk.session.undelivered(Outgoing(TURNS, turn, "k"), MessageTooLarge("turns", size=2, limit=1))

    assert desk.pump()[0]["response"]["status_details"]["error"]["code"] == "context_length_exceeded"


def test_a_turn_whose_replies_cannot_be_written_is_given_up() -> None:
    """What cannot be logged cannot be told; the session takes the next turn all the same."""
    desk = Desk()
    turn = desk.ask()

    desk.session.undelivered(Outgoing(REPLIES, Finished("sess_1", turn.turn, status="failed"), "k"), DOWN)

    assert desk.pump() == []
    assert len(desk.session.turns) == 0


def test_a_late_acknowledgement_is_not_told() -> None:
    """A turn that was given up before it was acknowledged does not appear afterwards."""
    desk = Desk()
    desk.session.receive(desk.codec.receive('{"type": "response.create"}'))
    _, acknowledgement = desk.session.outgoing()

    desk.session.undelivered(acknowledgement, DOWN)

    assert desk.read(acknowledgement.message) == []
    assert desk.answer(desk.ask())["status"] == "completed"


def test_an_end_that_does_not_come_back_is_forgotten() -> None:
    """Should even the gateway's own end be lost, the turn does not stay for ever, and that is told."""
    desk = Desk(turn_timeout_s=30.0, slack_s=5.0, publish_timeout_s=10.0)
    desk.ask()
    assert not desk.session.tick(time.monotonic() + 36)
    desk.session.outgoing()

    assert desk.session.tick(time.monotonic() + 60)

    assert len(desk.session.turns) == 0


def test_records_of_unknown_turns_are_skipped() -> None:
    """What belongs to no turn under way is told to nobody."""
    desk = Desk()

    made = desk.session.read(Position(0, 9), Delta("sess_1", "resp_old", at=0, text="x", index=1))

    assert made == []


def test_the_answer_follows_what_it_answers() -> None:
    """An item that the client adds while the answer is written comes after it."""
    desk = Desk()
    turn = desk.ask("question")
    desk.delta(turn, 0, "answer")
    added = desk.say("next question")
    desk.finish(turn, length=6)

    assert [item.text for item in desk.session.conversation] == ["question", "answer", "next question"]
    assert added[0]["previous_item_id"] == next(
        e["item"]["id"] for e in desk.told.events if e["type"] == "response.output_item.added"
    )


def test_an_answer_deleted_while_it_is_written_is_not_kept() -> None:
    """A client may delete the answer's item at any time; it gets its end, the conversation stays without it."""
    desk = Desk()
    turn = desk.ask("question")
    item = desk.delta(turn, 0, "answer")[0]["item"]["id"]
    desk.send("conversation.item.delete", item_id=item)

    told = desk.finish(turn, length=6)

    assert [item.text for item in desk.session.conversation] == ["question"]
    assert "conversation.item.done" not in types(told)
    assert told[-1]["response"]["output"][0]["id"] == item


def test_an_answer_keeps_its_place_when_what_it_answers_is_deleted() -> None:
    """Without the item that it answers, an answer stands where that was, not behind what was said since."""
    desk = Desk()
    desk.say("before", id="u0")
    desk.say("question", id="u1")
    desk.send("response.create")
    desk.send("conversation.item.delete", item_id="u1")
    desk.say("next question")

    opened = desk.delta(desk.turns[-1], 0, "answer")
    desk.finish(desk.turns[-1], length=6)

    assert [item.text for item in desk.session.conversation] == ["before", "answer", "next question"]
    assert opened[1]["previous_item_id"] == "u0"


def likely(*tokens: int) -> tuple[Likelihood, ...]:
    """Likelihoods of some tokens, each a letter."""
    return tuple(
        Likelihood(n, -n / 8, (Likelihood(n, -n / 8, (), b"abcdef"[n : n + 1]), Likelihood(9, -7.0, (), b"\xc3")), b"x")
        for n in tokens
    )


def test_likelihoods_come_with_the_text_once() -> None:
    """Each token's logprobs stand in the delta with its text, in the Responses API's shape, also after a takeover."""
    desk = Desk()
    turn = desk.ask(logprobs=2)

    def say(at: int, text: str, index: int, *tokens: int) -> list[Any]:
        shown = desk.read(Delta(turn.session, turn.turn, at, text, index, likely(*tokens)))
        return [event for event in shown if event["type"] == "response.output_text.delta"]

    (first,) = say(0, "ab", 2, 0, 1)
    assert say(0, "a", 1, 0) == []
    assert say(1, "b", 3, 1, 2) == []
    (second,) = say(2, "de", 5, 3, 4)
    (third,) = say(4, "f", 6)

    assert [one["logprob"] for one in first["logprobs"]] == [0, -1 / 8]
    assert [one["logprob"] for one in second["logprobs"]] == [-2 / 8, -3 / 8, -4 / 8]
    assert "logprobs" not in third
    assert second["logprobs"][0] == {
        "token": "x",
        "id": 2,
        "bytes": [120],
        "logprob": -0.25,
        "top_logprobs": [
            {"token": "c", "id": 2, "bytes": [99], "logprob": -0.25},
            {"token": "\ufffd", "id": 9, "bytes": [195], "logprob": -7.0},
        ],
    }
    LogprobsOfTheApi.model_validate(second["logprobs"][0])


def test_a_snapshot_knows_which_likelihoods_were_told() -> None:
    """Who goes on from a snapshot tells those that were held, and none again."""
    desk = Desk()
    turn = desk.ask(logprobs=0)
    desk.read(Delta(turn.session, turn.turn, 0, "ab", 2, likely(0, 1)))
    desk.read(Delta(turn.session, turn.turn, 1, "b", 3, likely(1, 2)))
    (answer,) = desk.session.turns

    restored = Answer.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(answer.running(0.0)), type=Running), 0.0)
    piece = Delta(turn.session, turn.turn, 0, "abde", 5, likely(0, 1, 2, 3, 4))
    told = restored.grow(restored.fresh(piece))

    assert told["delta"] == "de"
    assert [one["id"] for one in told["logprobs"]] == [2, 3, 4]
