"""A commit or a clear in the middle of a turn that was found: each beginning of speech has its end, no word is lost."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from pipeline.messages import Message
from pipeline.voice import Sound, Transcribed
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import error_of, types
from tests.apps.gateway.test_arrival import resumed
from tests.apps.gateway.test_voice_arrival import remember
from tests.apps.gateway.voice_desk import VoiceDesk

STARTED, STOPPED = (f"input_audio_buffer.speech_{what}" for what in ("started", "stopped"))
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
DELTA, COMPLETED = (f"conversation.item.input_audio_transcription.{kind}" for kind in ("delta", "completed"))


def speaking(at_ms: int = 300) -> VoiceDesk:
    """Return a session in which the user has begun to speak."""
    desk = VoiceDesk()
    desk.hear()
    desk.started("i1", at_ms)
    return desk


def commit(desk: VoiceDesk) -> tuple[list[Event], str]:
    """Commit; returns what the client is told, and what the speech stage is to call the turn."""
    told = desk.send("input_audio_buffer.commit")
    assert desk.sounds[-1].then == "commit"
    return told, desk.sounds[-1].item


def in_flight(desk: VoiceDesk, kind: str, **fields: Any) -> list[Message]:
    """Receive an event; returns what is on its way into the log, and notes what the speech stage gets."""
    desk.session.receive(desk.codec.receive(msgspec.json.encode({"type": kind, **fields}).decode()))
    out = desk.session.outgoing()
    desk.sounds += [one.message for one in out if isinstance(one.message, Sound)]
    return [one.message for one in out if one.partition is not None]


def test_a_commit_makes_an_item_of_what_has_begun() -> None:
    """The item that was told to come with the beginning of speech is the one that is committed, and completed."""
    desk = speaking()
    desk.partial("i1", 0, "cut")

    told, name = commit(desk)
    rest = desk.partial(name, 0, "cut short") + desk.transcribed(name, "cut short.")

    assert types(told) == [STOPPED, *COMMITTED]
    assert told[0]["audio_end_ms"] == 1000
    assert {told[0]["item_id"], told[1]["item_id"], told[2]["item"]["id"]} == {"i1"}
    assert [(e["type"], e["item_id"]) for e in rest] == [(DELTA, "i1"), (COMPLETED, "i1")]
    assert rest[0]["delta"] == " short"
    assert [(one.id, one.text) for one in desk.session.conversation] == [("i1", "cut short.")]
    assert desk.turns == []
    assert desk.stopped("i1", 900) == []


def test_a_response_to_what_was_committed_waits_for_it() -> None:
    """Asked for right behind the commit it has the words of it, and stands behind its item."""
    desk = speaking()
    _, name = commit(desk)
    assert desk.send("response.create") == []

    desk.transcribed(name, "hello")

    assert [[u.text for u in turn.conversation] for turn in desk.turns] == [["hello"]]


def test_a_turn_that_had_ended_before_the_commit_is_a_turn_of_its_own() -> None:
    """The stage says only after the commit that the turn had ended: what was committed is what came behind it."""
    desk = speaking()
    _, name = commit(desk)

    told = desk.stopped("i1", 900)
    before = desk.transcribed("i1", "before")
    behind = desk.transcribed(name, "behind")

    assert (types(told), told[0]["item_id"]) == (COMMITTED, name)
    assert (before[0]["item_id"], behind[0]["item_id"]) == ("i1", name)
    assert [(one.id, one.text) for one in desk.session.conversation] == [("i1", "before"), (name, "behind")]
    assert [[u.text for u in turn.conversation] for turn in desk.turns] == [["before", "behind"]]


def test_a_turn_ends_by_itself_while_the_commit_is_on_its_way() -> None:
    """By the log it has ended before the commit, which is another item, behind it."""
    desk = speaking()
    on_the_way = in_flight(desk, "input_audio_buffer.commit")
    name = desk.sounds[-1].item

    first = desk.stopped("i1", 900)
    told = [event for message in on_the_way for event in desk.read(message)]
    desk.transcribed("i1", "before")
    desk.transcribed(name, "behind")

    assert types(first) == [STOPPED, *COMMITTED]
    assert (types(told), told[0]["previous_item_id"]) == (COMMITTED, "i1")
    assert [(one.id, one.text) for one in desk.session.conversation] == [("i1", "before"), (name, "behind")]


def test_speech_begins_while_the_commit_is_on_its_way() -> None:
    """By the log it begins before the commit, which makes it an item; what is told next stands behind that."""
    desk = VoiceDesk()
    desk.hear()
    on_the_way = in_flight(desk, "input_audio_buffer.commit")
    name = desk.sounds[-1].item
    item = {"type": "message", "role": "user", "id": "mine", "content": [{"type": "input_text", "text": "x"}]}
    on_the_way += in_flight(desk, "conversation.item.create", item=item)

    desk.started("i1", 300)
    told = [event for message in on_the_way for event in desk.read(message)]
    done = desk.transcribed(name, "hello")

    assert types(told[:4]) == [STOPPED, *COMMITTED]
    assert (told[4]["item"]["id"], told[4]["previous_item_id"]) == ("mine", "i1")
    assert [(e["type"], e["item_id"]) for e in done] == [(COMPLETED, "i1")]


def test_speech_that_is_found_behind_a_commit_that_it_was_in_has_its_end() -> None:
    """Who sends faster than the stage listens commits what it has not heard yet: nothing that begins is left open."""
    desk = VoiceDesk()
    desk.hear(3000)
    _, name = commit(desk)

    desk.started("i1", 300)
    desk.stopped("i1", 1200)
    desk.transcribed("i1", "one")
    desk.started("i2", 2000)
    told = desk.transcribed(name, "two")

    assert [(e["type"], e["item_id"]) for e in told[:2]] == [(STOPPED, "i2"), (COMPLETED, name)]
    assert [one.text for one in desk.session.conversation] == ["two", "one"]
    assert not desk.session.account.ears.speaking


def test_what_begins_right_behind_a_commit_is_no_part_of_it() -> None:
    """The stage hears in frames, so that a turn behind a commit may begin a little before its place."""
    desk = speaking()
    _, name = commit(desk)
    desk.hear()

    (begun,) = desk.started("i2", 980)
    desk.transcribed(name, "one")
    desk.stopped("i2", 1900)
    desk.transcribed("i2", "two")

    assert (begun["type"], begun["audio_start_ms"]) == ("input_audio_buffer.speech_started", 1000)
    assert [one.text for one in desk.session.conversation] == ["one", "two"]


def test_what_begins_ends_what_had_begun() -> None:
    """What was found too late, in what had been committed, ends at the latest where other speech begins."""
    desk = VoiceDesk()
    desk.hear(3000)
    commit(desk)
    desk.started("i1", 300)

    told = desk.started("i2", 2000)

    assert [(e["type"], e["item_id"]) for e in told][:1] == [(STOPPED, "i1")]
    assert types(told)[1:] == ["input_audio_buffer.speech_started"]


def test_words_of_what_was_deleted_are_not_told() -> None:
    """Its item is gone."""
    desk = speaking()
    _, name = commit(desk)
    desk.send("conversation.item.delete", item_id="i1")

    assert desk.partial(name, 0, "never mind") == []


def test_what_was_committed_is_not_found_again() -> None:
    """A speech worker that reads from the middle of it finds a beginning there, which nobody is told."""
    desk = speaking()
    _, name = commit(desk)
    desk.transcribed(name, "one")

    assert desk.started("other", 600) == []
    assert desk.transcribed(name, "ne") == []
    assert not desk.session.account.ears.speaking


def test_two_commits_in_one_flight() -> None:
    """What has begun is the first one; the second is another item behind it."""
    desk = speaking()
    on_the_way = in_flight(desk, "input_audio_buffer.commit")
    first = desk.sounds[-1].item
    on_the_way += in_flight(desk, "input_audio_buffer.append", audio="AAAA" * 4000)
    on_the_way += in_flight(desk, "input_audio_buffer.commit")
    second = desk.sounds[-1].item

    told = [event for message in on_the_way for event in desk.read(message)]
    desk.transcribed(first, "one")
    desk.transcribed(second, "two")

    assert types(told) == [STOPPED, *COMMITTED, *COMMITTED]
    assert [(one.id, one.text) for one in desk.session.conversation] == [("i1", "one"), (second, "two")]


def test_it_goes_on_under_both_names_elsewhere() -> None:
    """Who reads no more than the last snapshot knows which item the stage speaks of."""
    desk = speaking()
    _, name = commit(desk)
    remember(desk)

    there = resumed(desk, desk.told.events[-1]["event_id"], first=desk.offset).session
    made = there.read(desk.log[-1][0]._replace(offset=desk.offset + 5), Transcribed("sess_1", desk.stream, name, "one"))

    assert [(e["type"], e["item_id"]) for e in made] == [(COMPLETED, "i1")]


def test_speech_that_is_forgotten_has_its_end() -> None:
    """After a clear in the middle of a turn there is nothing to commit, and what had begun is no item."""
    desk = speaking()

    told = desk.send("input_audio_buffer.clear")

    assert types(told) == [STOPPED, "input_audio_buffer.cleared"]
    assert (told[0]["item_id"], told[0]["audio_end_ms"]) == ("i1", 1000)
    assert desk.sounds[-1].then == "clear"
    assert not desk.session.account.ears.speaking
    assert error_of(desk.send("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"


def test_a_turn_that_had_ended_before_it_was_cleared_is_one() -> None:
    """The stage says so after the clear; its end is not told twice."""
    desk = speaking()
    desk.send("input_audio_buffer.clear")

    assert types(desk.stopped("i1", 900)) == COMMITTED
    assert types(desk.transcribed("i1", "hello"))[0] == COMPLETED


def test_a_long_silence_does_not_end_what_begins() -> None:
    """Speech that begins while the answer to a silence is on its way is not a part of that."""
    desk = VoiceDesk()
    desk.listen(turn_detection={"type": "server_vad", "idle_timeout_ms": 2000, "create_response": True})
    desk.utter("i0", "hello")
    desk.speak(desk.turns[-1], "yes", ms=200)
    desk.later(1)
    desk.hear(4000)
    desk.session.tick(time.monotonic() + 3)
    on_the_way = [one.message for one in desk.session.outgoing()]

    desk.started("i1", 4900)
    told = [event for message in on_the_way for event in desk.read(message)]
    desk.pump()

    assert types(told)[0] == "input_audio_buffer.timeout_triggered"
    assert desk.session.account.ears.begun == ("i1",)
    assert types(desk.partial("i1", 0, "wait", 5000)) == [DELTA]


def test_speech_of_which_one_hears_after_its_clear_has_its_end() -> None:
    """Whoever clears at once has not been told that it began: both are told, and nobody waits for more of it."""
    desk = VoiceDesk()
    desk.hear()
    desk.send("input_audio_buffer.clear")

    told = desk.started("i1", 300)

    assert [(e["type"], e.get("audio_start_ms", e.get("audio_end_ms"))) for e in told] == [
        (STARTED, 300),
        (STOPPED, 1000),
    ]
    assert not desk.session.account.ears.speaking
    desk.hear()
    assert types(desk.started("i2", 1300)) == [STARTED]


def test_a_turn_that_ended_before_a_clear_overtook_it_is_an_item() -> None:
    """Its beginning, its end and its words come after the clear, which was of what came behind it."""
    desk = VoiceDesk()
    desk.hear()
    desk.send("input_audio_buffer.clear")

    told = desk.started("i1", 100) + desk.stopped("i1", 600) + desk.transcribed("i1", "hello")

    assert types(told)[:5] == [STARTED, STOPPED, *COMMITTED]
    assert [(one.id, one.text) for one in desk.session.conversation] == [("i1", "hello")]
