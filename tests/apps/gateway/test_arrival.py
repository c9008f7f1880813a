"""A session rebuilt from its log: whatever the place at which its client left, nothing is lost and nothing is twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from apps.gateway.account import Position
from apps.gateway.arrival import Arrival
from apps.gateway.cursor import BadCursor, Cursor
from apps.gateway.refusal import Refusal
from apps.gateway.session import Session
from pipeline.messages import Delta, Finished, Message, Told, Turn
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import PARTITION, Desk, error_of
from tests.apps.gateway.harness import user

Log = list[tuple[Position, Message]]


def arrival(desk: Desk, event_id: str) -> Arrival:
    """Return the session of `desk` on its way to another gateway, whose client has got all up to an event."""
    cursor = desk.session.account.stamp.read(event_id)
    return Arrival(Session(desk.session.id, desk.session.terms), cursor)


def resumed(
    desk: Desk, event_id: str, *, behind: int = 0, first: int = 0, again: int = 0, audio: tuple[str, int] | None = None
) -> Arrival:
    """Return it when it has come; the last `behind` records came while its past was read, `again` after that.

    What is read live may be further than what was read back, or not yet so far. `audio` is how far that stands in the
    log.
    """
    coming = arrival(desk, event_id)
    split = len(desk.log) - behind
    for record in desk.log[split:]:
        coming.read(*record)
    coming.rebuild([(at, message) for at, message in desk.log[:split] if at.offset >= first], first)
    for record in desk.log[-again:] if again else ():
        coming.read(*record)
    coming.session.claim(audio)
    (claim,) = coming.session.outgoing()
    coming.read(Position(PARTITION, desk.offset + 1), claim.message)
    return coming


def body(events: Sequence[Event]) -> list[str]:
    """Return events as a client gets them, without the one that says that it is back."""
    return [json.dumps(event, sort_keys=True) for event in events if not event.get("resumed")]


def converse(desk: Desk) -> None:
    """Hold a conversation with everything in it."""
    desk.send("session.update", event_id="s", session={"type": "realtime", "instructions": "Be kind.", "seed": 3})
    first = desk.ask("one")
    desk.delta(first, 0, "a b")
    desk.session.remember(desk.offset, 0)
    desk.pump()
    desk.say("an item that comes meanwhile", id="m")
    desk.delta(first, 0, "a b c")
    desk.send("response.create", response={"conversation": "none", "input": [user("beside")], "metadata": {"k": "v"}})
    beside = desk.turns[-1]
    desk.delta(beside, 0, "x")
    desk.delta(first, 5, " d")
    desk.finish(first, length=7)
    desk.send("conversation.item.delete", item_id="m")
    desk.send("conversation.item.create", item={"type": "function_call", "name": "f", "arguments": "{}", "id": "c"})
    desk.session.remember(desk.offset, 0)
    desk.pump()
    desk.finish(beside, status="incomplete", reason="length", length=1)
    desk.send("response.cancel", event_id="nothing to cancel")
    last = desk.ask("two")
    desk.delta(last, 0, "y")
    desk.finish(last, status="cancelled", reason="cancelled", length=1)


def test_the_same_bytes_at_every_cut() -> None:
    """Wherever the client left, it gets exactly the events after that, ids included, as without a break."""
    desk = Desk(max_conversation_items=4)
    converse(desk)
    told = [event for event in desk.told.events if "event_id" in event]

    for cut in range(len(told)):
        since = sum(at.offset > offset(desk, told[cut]) for at, _ in desk.log)
        for behind, again in {(0, 0), (min(3, since), 0), (since, 0), (0, since), (0, min(3, since))}:
            there = resumed(desk, told[cut]["event_id"], behind=behind, again=again)
            assert body(there.missed) == body(told[cut + 1 :])
            assert there.session.conversation.ids == desk.session.conversation.ids


def test_the_same_bytes_from_the_place_that_the_cursor_names() -> None:
    """What an event's id says is enough: nothing before that place must be read."""
    desk = Desk(max_conversation_items=4)
    converse(desk)
    told = list(desk.told.events)

    bases = set()
    for cut, event in enumerate(told):
        cursor = desk.session.account.stamp.read(event["event_id"])
        bases.add(cursor.base)
        assert body(resumed(desk, event["event_id"], first=cursor.base).missed) == body(told[cut + 1 :])
    assert len(bases) == 3


def test_what_goes_on_is_the_same() -> None:
    """After the cut, too, both make the same events of the same records, in the middle of an answer."""
    desk = Desk()
    turn = desk.ask("one")
    shown = desk.delta(turn, 0, "a b")
    there = resumed(desk, shown[-1]["event_id"])

    for message in (
        Delta(turn.session, turn.turn, at=0, text="a b c", index=2),
        Finished(turn.session, turn.turn, status="completed", length=5),
    ):
        here = desk.read(message)
        assert body(there.session.read(Position(PARTITION, desk.offset), message)) == body(here)
    assert [item.text for item in there.session.conversation] == ["one", "a b c"]


PIECES = st.lists(st.tuples(st.integers(0, 3), st.text("ab ", min_size=1, max_size=4)), min_size=1, max_size=12)


@given(PIECES, st.integers(0, 40), st.sets(st.integers(0, 12)), st.sampled_from(["completed", "cancelled", "failed"]))
@budget(max_examples=150, deadline=None)
def test_any_answer_at_any_cut(pieces: list[tuple[int, str]], cut: int, snapshots: set[int], status: Any) -> None:
    """Whatever pieces an answer came in, repeated and overlapping, with snapshots anywhere, the rest is the same."""
    desk = Desk()
    turn = desk.ask("one")
    text = ""
    for number, (back, piece) in enumerate(pieces):
        at = max(0, len(text) - back)
        desk.delta(turn, at, text[at:] + piece)
        text += piece
        if number in snapshots:
            desk.session.remember(desk.offset, 0)
            desk.pump()
    desk.finish(turn, status=status, length=len(text))
    told = list(desk.told.events)
    cut = min(cut, len(told) - 1)

    assert body(resumed(desk, told[cut]["event_id"]).missed) == body(told[cut + 1 :])


def offset(desk: Desk, event: Event) -> int:
    """Return the offset of the record that an event was made of."""
    return desk.session.account.stamp.read(event["event_id"]).offset


def test_what_was_done_before_is_not_repeated() -> None:
    """Events that a client sends again after a reconnect under the same ids are done once; new ones are done."""
    desk = Desk()
    item: Any = {"event_id": "e1", "item": user("hi", id="u1")}
    desk.send("conversation.item.create", **item)
    desk.send("response.create", event_id="e2")

    there = resumed(desk, desk.told.events[0]["event_id"]).session
    for frame in ({"type": "conversation.item.create", **item}, {"type": "response.create", "event_id": "e2"}):
        there.receive(desk.codec.receive(json.dumps(frame)))
    assert there.outgoing() == []
    there.receive(
        desk.codec.receive(json.dumps({"type": "conversation.item.delete", "event_id": "e3", "item_id": "u1"}))
    )

    assert len(there.outgoing()) == 1
    assert len(there.turns) == 1


def test_a_cancel_that_is_sent_again_cancels_nothing_else() -> None:
    """A cancel that was done before the client came back is not done to what has begun since, and is no error."""
    desk = Desk()
    first = desk.ask("one")
    desk.send("response.cancel", event_id="stop")
    desk.finish(first, status="cancelled", reason="cancelled", length=0)
    desk.ask("two")

    there = resumed(desk, desk.told.events[0]["event_id"]).session
    there.receive(desk.codec.receive(json.dumps({"type": "response.cancel", "event_id": "stop"})))

    assert there.outgoing() == []
    assert [answer.cancelled for answer in there.turns] == [False]


def test_what_was_refused_may_be_asked_again() -> None:
    """An event that was not carried out is tried when it comes again."""
    desk = Desk()
    error_of(desk.send("conversation.item.delete", event_id="e1", item_id="u1"))
    desk.say("hi", id="u1")

    there = resumed(desk, desk.told.events[0]["event_id"]).session
    there.receive(
        desk.codec.receive(json.dumps({"type": "conversation.item.delete", "event_id": "e1", "item_id": "u1"}))
    )

    (told,) = (out.message for out in there.outgoing())
    assert isinstance(told, Told)
    assert told.events[0]["type"] == "conversation.item.deleted"


def test_a_name_of_many_events_is_none() -> None:
    """A client that gives all its events one id has them done, after a reconnect as before."""
    desk = Desk()
    for _ in range(2):
        desk.send("conversation.item.create", event_id="same", item=user("hi"))

    there = resumed(desk, desk.told.events[-1]["event_id"]).session
    there.receive(
        desk.codec.receive(json.dumps({"type": "conversation.item.create", "event_id": "same", "item": user("x")}))
    )

    assert len(there.outgoing()) == 1


@pytest.mark.parametrize("kind", ["conversation.item.create", "conversation.item.retrieve"])
def test_who_numbers_its_events_anew_loses_none(kind: str) -> None:
    """An id that stands for something else after a reconnect is that of a new event, and so are all that follow."""
    desk = Desk()
    desk.send("conversation.item.create", event_id="event_1", item=user("hi", id="u1"))
    desk.send("response.create", event_id="event_2")
    desk.answer(desk.turns[-1])
    other: dict[str, Any] = {"item_id": "u1"} if kind.endswith("retrieve") else {"item": user("more")}

    there = resumed(desk, desk.told.events[-1]["event_id"]).session
    for frame in (
        {"type": kind, "event_id": "event_1", **other},
        {"type": "response.create", "event_id": "event_2"},
    ):
        there.receive(desk.codec.receive(json.dumps(frame)))

    assert [type(out.message) for out in there.outgoing()] == [Told, Turn, Told]


def test_only_the_owner_counts() -> None:
    """What the former owner says after the claim is told to nobody, and it lets the session go without ending turns."""
    desk = Desk()
    turn = desk.ask("one")
    there = resumed(desk, desk.told.events[-1]["event_id"])
    desk.session.receive(desk.codec.receive(json.dumps({"type": "conversation.item.create", "item": user("late")})))
    (late,) = desk.session.outgoing()

    assert there.session.read(Position(PARTITION, desk.offset + 2), late.message) == []
    there.session.claim()
    (claim,) = there.session.outgoing()
    assert desk.session.read(Position(PARTITION, desk.offset + 1), claim.message) == []
    assert desk.session.lost
    assert desk.session.outgoing() == []
    assert [answer.id for answer in there.session.turns] == [turn.turn]


def test_a_turn_that_nobody_was_told_of_is_given_up_by_the_former_owner() -> None:
    """A response that the log does not acknowledge before the claim is cancelled; the client asks for it again."""
    desk = Desk()
    there = resumed(desk, desk.told.events[-1]["event_id"])
    desk.session.receive(desk.codec.receive('{"type": "response.create"}'))
    desk.session.outgoing()
    there.session.claim()
    (claim,) = there.session.outgoing()

    desk.session.read(Position(PARTITION, desk.offset + 1), claim.message)

    (cancel,) = desk.session.outgoing()
    assert cancel.topic.name == "control"


@pytest.mark.parametrize("cut", [0, 4])
def test_a_past_that_is_not_whole_is_none(cut: int) -> None:
    """Where the log begins after what the client has missed, it gets nothing, and is told why and what to do."""
    desk = Desk()
    desk.answer(desk.ask("one"))

    with pytest.raises(Refusal) as refused:
        resumed(desk, desk.told.events[cut]["event_id"], first=3)

    assert (refused.value.code, refused.value.reason) == ("resume_failed", "gone")
    assert "connect without `resume`" in refused.value.message


def test_a_newer_session_of_the_name_is_another() -> None:
    """A chat that was opened anew under its name is not the one that the client left."""
    desk = Desk()
    event_id = desk.told.events[-1]["event_id"]
    other = Session(desk.session.id, desk.session.terms)
    other.open()
    for out in other.outgoing():
        desk.offset += 1
        desk.log.append((Position(PARTITION, desk.offset), out.message))

    with pytest.raises(Refusal) as refused:
        resumed(desk, event_id)

    assert refused.value.reason == "replaced"


def test_snapshots_come_as_what_they_spare_grows() -> None:
    """One is made when as much has come since the last one as that is long, and not before."""
    desk = Desk()
    turn = desk.ask("one")
    made = []
    for number in range(300):
        desk.delta(turn, number, "x")
        desk.session.remember(desk.offset, 10_000)
        if out := desk.session.outgoing():
            made.append(number)
            for one in out:
                desk.read(one.message)

    assert 3 <= len(made) <= 9
    assert made[0] >= 25


def test_a_place_in_the_log_is_signed() -> None:
    """An id of another session, another tenant, another secret, or with a bit changed, is none."""
    desk = Desk()
    stamp = desk.session.account.stamp
    signer = desk.session.terms.signer
    good = desk.told.events[0]["event_id"]

    assert stamp.read(good) == Cursor(PARTITION, 2, 0, 1)
    for other in (
        signer.stamp("default", "sess_2"),
        signer.stamp("other", "sess_1"),
        type(signer)("x").stamp("default", "sess_1"),
    ):
        with pytest.raises(BadCursor):
            other.read(good)
    for wrong in ("", "event_", good + "A", good[:-1], good[:-1] + "é", "event_" + "A" * 40, good.swapcase()):
        with pytest.raises(BadCursor):
            stamp.read(wrong)
