"""What the speech stage says, as the client is told of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apps.gateway.protocols.realtime import Realtime
from pipeline.messages import Finished, Problem
from pipeline.voice import Detection, Listening, Sound, Transcribed
from tests.apps.gateway.checks import Event
from tests.apps.gateway.desk import error_of, types
from tests.apps.gateway.voice_desk import MS, VoiceDesk

COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
TRANSCRIPTION = "conversation.item.input_audio_transcription."
BEGUN = ["response.created", "rate_limits.updated"]


def last(events: list[Event], kind: str) -> Event:
    """Return the last event of a kind."""
    return [event for event in events if event["type"] == kind][-1]


def test_a_turn_of_speech_is_told_transcribed_and_answered() -> None:
    """Speech starts, stops, is an item, is transcribed as it goes and as a whole, and is answered in this order."""
    desk = VoiceDesk()
    desk.hear()

    started = desk.started("i1", 120)
    partial = desk.partial("i1", 0, "hello")
    stopped = desk.stopped("i1", 900)
    told = desk.transcribed("i1", "hello there", samples=780 * MS)

    assert [(e["type"], e["item_id"], e["audio_start_ms"]) for e in started] == [
        ("input_audio_buffer.speech_started", "i1", 120)
    ]
    assert [(e["type"], e["delta"], e["content_index"]) for e in partial] == [(f"{TRANSCRIPTION}delta", "hello", 0)]
    assert types(stopped) == ["input_audio_buffer.speech_stopped", *COMMITTED]
    assert stopped[0]["audio_end_ms"] == 900
    assert stopped[2]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert types(told) == [f"{TRANSCRIPTION}completed", *BEGUN]
    assert (told[0]["transcript"], told[0]["usage"]) == ("hello there", {"type": "duration", "seconds": 0.78})
    assert [(u.role, u.text) for u in desk.turns[-1].conversation] == [("user", "hello there")]


def test_each_turn_follows_what_was_said_before() -> None:
    """The items of speech stand in the conversation in the order in which they ended, among those of text."""
    desk = VoiceDesk()
    desk.listen(turn_detection={"type": "server_vad", "create_response": False})
    desk.say("first", id="t1")

    desk.utter("i1", "second")
    desk.say("third", id="t2")
    stopped = desk.utter("i2", "fourth", 1000)
    desk.send("response.create")

    assert last(stopped, "input_audio_buffer.committed")["previous_item_id"] == "t2"
    assert [u.text for u in desk.turns[-1].conversation] == ["first", "second", "third", "fourth"]


def test_what_is_said_again_after_a_takeover_is_told_once() -> None:
    """A new owner of the stream says the turn again: nothing of it is told twice, what is new is told."""
    desk = VoiceDesk()
    desk.hear()
    desk.started("i1", 0)
    desk.partial("i1", 0, "one two")

    again = desk.started("i1", 0) + desk.partial("i1", 0, "one two three")
    desk.stopped("i1", 900)
    stopped = desk.stopped("i1", 900)
    desk.transcribed("i1", "one two three four")
    after = [*desk.transcribed("i1", "one two three four"), *desk.started("i1", 0), *desk.stopped("i1", 900)]
    after += desk.partial("i1", 0, "one")

    assert [e["delta"] for e in again] == [" three"]
    assert stopped == after == []
    assert len(desk.turns) == 1


def test_the_end_of_what_was_told_is_no_turn() -> None:
    """A new owner that began to read in the middle of a told turn ends nothing, and what goes on comes to its end."""
    desk = VoiceDesk()
    desk.utter("i1", "one two three")
    desk.started("i2", 1200)
    desk.partial("i2", 0, "four")

    again = [*desk.started("tail", 400), *desk.partial("tail", 0, "three"), *desk.stopped("tail", 900)]
    again += desk.transcribed("tail", "three")
    again += desk.started("i2", 1200)
    told = [*desk.stopped("i2", 2000), *desk.transcribed("i2", "four five")]

    assert again == []
    assert last(told, f"{TRANSCRIPTION}completed")["transcript"] == "four five"
    assert [item.text for item in desk.session.conversation] == ["one two three", "four five"]


def test_the_language_is_told_where_it_is_known() -> None:
    """As the protocol has it, in a list, and beside it alone; where it is not known there is neither."""
    desk = VoiceDesk()
    desk.hear()
    for item, at_ms, language in (("i1", 0, "en"), ("i2", 900, "")):
        desk.started(item, at_ms)
        desk.stopped(item, at_ms + 800)
        desk.transcribed(item, "hello", language=language)
    known, unknown = (event for event in desk.told.events if event["type"] == f"{TRANSCRIPTION}completed")

    assert (known["language"], known["languages"]) == ("en", [{"code": "en"}])
    assert not {"language", "languages"} & set(unknown)


def test_without_transcription_only_the_item_knows_the_words() -> None:
    """A client that asked for no transcription is told none; the model is told what was said all the same."""
    desk = VoiceDesk(transcribe=False)
    desk.hear()
    desk.started("i1", 0)

    assert desk.partial("i1", 0, "hello") == []
    desk.stopped("i1", 900)
    told = desk.transcribed("i1", "hello")
    (shown,) = desk.send("conversation.item.retrieve", item_id="i1")

    assert types(told) == BEGUN
    assert shown["item"]["content"] == [{"type": "input_audio", "transcript": "hello"}]


def test_noise_is_not_answered() -> None:
    """A turn without words is an item with an empty transcript, and no response begins."""
    desk = VoiceDesk()

    told = desk.utter("i1", "")

    assert last(told, f"{TRANSCRIPTION}completed")["transcript"] == ""
    assert desk.turns == []


def test_what_was_deleted_meanwhile_is_not_answered() -> None:
    """An item that the client took away while it was transcribed has no transcript and no response."""
    desk = VoiceDesk()
    desk.hear()
    desk.started("i1", 120)
    desk.stopped("i1", 900)

    desk.send("conversation.item.delete", item_id="i1")
    told = desk.transcribed("i1", "hello there", samples=780 * MS)

    assert types(told) == []
    assert desk.turns == []


def test_a_failed_transcription_is_told() -> None:
    """Where the words stay unknown, the client hears why, with a type and a code, and no response begins."""
    desk = VoiceDesk()
    desk.hear()
    desk.started("i1", 0)
    desk.stopped("i1", 900)

    (failed,) = desk.transcribed("i1", "", problem=Problem("overloaded", "too much is said", retry_after=2.0))

    assert failed["type"] == f"{TRANSCRIPTION}failed"
    assert failed["error"]["code"] == "overloaded"
    assert failed["error"]["type"] == "rate_limit_error"
    assert desk.turns == []


def test_a_transcript_that_does_not_come_has_failed() -> None:
    """After its time the transcript is told to have failed, and what waited for it goes on."""
    desk = VoiceDesk({"transcript_timeout_s": 5.0})
    desk.listen(turn_detection=None)
    desk.say("and?")
    desk.hear()
    desk.send("input_audio_buffer.commit")
    desk.send("response.create")

    assert desk.later(4) == []
    told = desk.later(6)

    assert told[0]["error"]["code"] == "transcription_timeout"
    assert types(told[1:]) == BEGUN


def test_a_turn_is_not_answered_where_that_is_not_wanted() -> None:
    """With `create_response` false the client decides when to answer."""
    desk = VoiceDesk()
    desk.listen(turn_detection={"type": "semantic_vad", "create_response": False})

    desk.utter("i1", "hello")

    assert desk.turns == []
    desk.send("response.create")
    assert [u.text for u in desk.turns[-1].conversation] == ["hello"]


def test_an_answer_waits_while_the_user_goes_on() -> None:
    """A transcript that comes when the next turn has begun already is answered together with that one."""
    desk = VoiceDesk()
    desk.hear()
    desk.started("i1", 0)
    desk.stopped("i1", 900)
    desk.started("i2", 1000)

    desk.transcribed("i1", "one")
    assert desk.turns == []
    desk.stopped("i2", 1900)
    desk.transcribed("i2", "two")

    assert [[u.text for u in turn.conversation] for turn in desk.turns] == [["one", "two"]]


def test_a_turn_without_interruption_is_answered_after_the_answer() -> None:
    """With `interrupt_response` false the answer goes on, and what was said meanwhile is answered when it is over."""
    desk = VoiceDesk()
    desk.listen(turn_detection={"type": "server_vad", "interrupt_response": False})
    desk.utter("i1", "one")
    desk.delta(desk.turns[0], 0, "yes")

    desk.utter("i2", "two", 1000)
    assert desk.cancels == []
    assert len(desk.turns) == 1
    assert desk.speak(desk.turns[0])["status"] == "completed"

    assert [u.text for u in desk.turns[1].conversation] == ["one", "yes", "two"]


# -- by hand


def test_a_commit_makes_an_item_at_once() -> None:
    """What was sent so far is an item, its transcript is filled in later, and nothing is answered by itself."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear(400)

    told = desk.send("input_audio_buffer.commit")
    item = told[0]["item_id"]

    assert types(told) == COMMITTED
    assert (desk.sounds[-1].then, desk.sounds[-1].item, desk.sounds[-1].at) == ("commit", item, 400 * MS)
    assert desk.sounds[-1].how == Listening()
    (completed,) = desk.transcribed(item, "by hand")
    assert completed["transcript"] == "by hand"
    assert desk.turns == []
    assert desk.send("conversation.item.retrieve", item_id=item)[0]["item"]["content"][0]["transcript"] == "by hand"


@pytest.mark.parametrize(("ms", "shown"), [(0, "0.00"), (99, "99.00")])
def test_an_empty_commit_is_refused(ms: int, shown: str) -> None:
    """Less than 100 ms since the last turn is nothing to commit, by the code and the words that clients know."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear(500)
    desk.send("input_audio_buffer.commit")
    desk.hear(ms)

    error = error_of(desk.send("input_audio_buffer.commit"))

    assert error["code"] == "input_audio_buffer_commit_empty"
    assert f"only has {shown}ms" in error["message"]


def test_a_response_waits_for_the_transcript() -> None:
    """Asked for before the words are known, a response begins with them, as it was asked for."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear()
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]

    assert desk.send("response.create", response={"metadata": {"client_event_id": "e"}, "instructions": "Rhyme."}) == []
    told = desk.transcribed(item, "hello")

    assert types(told) == [f"{TRANSCRIPTION}completed", *BEGUN]
    assert told[1]["response"]["metadata"] == {"client_event_id": "e"}
    assert [u.text for u in desk.turns[-1].conversation] == ["Rhyme.", "hello"]


def test_only_one_response_waits() -> None:
    """A second one that would have to wait is refused, and one beside the conversation waits for itself."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear()
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]
    desk.send("response.create")

    error = error_of(desk.send("response.create", event_id="second"))
    beside = desk.send("response.create", response={"conversation": "none", "instructions": "Hi."})
    told = desk.transcribed(item, "hello")

    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "second")
    assert beside == []
    assert types(told[1:]) == BEGUN * 2
    assert sorted([u.text for u in turn.conversation] for turn in desk.turns) == [["Hi.", "hello"], ["hello"]]


def test_what_is_made_of_nothing_that_was_said_does_not_wait() -> None:
    """A response beside the conversation that brings its own input begins at once, unless that refers to speech."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear()
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]
    own = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "own"}]}

    at_once = desk.send("response.create", response={"conversation": "none", "input": [own]})
    reference = {"type": "item_reference", "id": item}
    later = desk.send(
        "response.create", response={"conversation": "none", "input": [reference], "metadata": {"n": "1"}}
    )
    told = desk.transcribed(item, "hello")

    assert types(at_once) == BEGUN
    assert later == []
    assert types(told[1:]) == BEGUN
    assert told[1]["response"]["metadata"] == {"n": "1"}
    assert [[u.text for u in turn.conversation] for turn in desk.turns] == [["own"], ["hello"]]


def test_those_that_wait_beside_the_conversation_are_bounded() -> None:
    """They count as under way; each is told once, also one that cannot begin any more when its time has come."""
    desk = VoiceDesk(max_responses=3)
    desk.listen(turn_detection=None)
    desk.hear()
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]
    gone = {"conversation": "none", "input": [{"type": "item_reference", "id": item}]}
    desk.send("response.create", event_id="mine", response=gone)
    desk.send("response.create", response={"conversation": "none"})
    error = error_of(desk.send("response.create", response={"conversation": "none"}))

    desk.send("conversation.item.delete", item_id=item)
    desk.say("something else")
    told = desk.later(1)

    assert error["code"] == "too_many_responses"
    assert [event["error"]["event_id"] for event in desk.told.events if event["type"] == "error"][1:] == ["mine"]
    assert len(desk.turns) == 1
    assert told == desk.later(2) == []


def test_a_response_that_waited_and_cannot_begin_is_refused_once() -> None:
    """What is refused when its time has come is told with the client's own id, and does not come again."""
    desk = VoiceDesk(max_text_bytes=100)
    desk.listen(turn_detection=None)
    desk.hear()
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]
    gone = {"input": [{"type": "item_reference", "id": "gone"}]}
    desk.send("response.create", event_id="mine", response=gone)

    told = desk.transcribed(item, "hello")

    assert (told[1]["type"], told[1]["error"]["event_id"]) == ("error", "mine")
    assert desk.later(1) == []
    desk.send("response.create")
    assert len(desk.turns) == 1


def test_cancel_commit_and_ask_in_one_go() -> None:
    """As push-to-talk does it: the next response waits for the end of the one that is given up."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    first = desk.ask("one")
    desk.hear()
    desk.send("response.cancel")
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]

    assert desk.send("response.create") == []
    desk.transcribed(item, "two")
    assert len(desk.turns) == 1
    desk.finish(first, status="cancelled", reason="cancelled", length=0)

    assert [u.text for u in desk.turns[1].conversation] == ["one", "two"]


def test_a_response_that_waits_can_be_cancelled() -> None:
    """What was asked for and has not begun does not begin after a cancel."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear()
    item = desk.send("input_audio_buffer.commit")[0]["item_id"]
    desk.send("response.create")

    told = desk.send("response.cancel")
    assert types(told) == ["response.created", "response.done"]
    assert told[1]["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert types(desk.transcribed(item, "never mind")) == [f"{TRANSCRIPTION}completed"]
    assert error_of(desk.send("response.cancel"))["code"] == "response_cancel_not_active"


def test_what_was_asked_for_counts_before_it_is_read_back() -> None:
    """Sent in one flight, a second response is refused, and a cancel finds the first, which never begins."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear()
    for event in (
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create", "event_id": "first", "response": {"metadata": {"n": "1"}}},
        {"type": "response.create", "event_id": "second"},
        {"type": "response.cancel"},
    ):
        desk.session.receive(Realtime(longest=10_000).receive(msgspec.json.encode(event).decode()))
    told = desk.pump()
    item = told[0]["item_id"]

    assert types(told) == [*COMMITTED, "error", "response.created", "response.done"]
    assert (told[3]["error"]["code"], told[3]["error"]["event_id"]) == (
        "conversation_already_has_active_response",
        "second",
    )
    assert told[5]["response"]["metadata"] == {"n": "1"}
    assert types(desk.transcribed(item, "never mind")) == [f"{TRANSCRIPTION}completed"]
    desk.send("response.create")
    assert len(desk.turns) == 1


def test_audio_in_an_item_is_transcribed() -> None:
    """Audio that comes as an item goes through a stream of its own, and is answered when its words are known."""
    desk = VoiceDesk()
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_audio", "audio": "AAAA" * 4000}]
    item = {"type": "message", "role": "user", "id": "mine", "content": parts}

    added = desk.send("conversation.item.create", item=item)
    desk.send("response.create")
    assert desk.turns == []
    told = desk.read(Transcribed("sess_1", desk.sounds[-1].turn, "mine", "a bell", samples=6000))

    assert added[0]["item"]["content"][1] == {"type": "input_audio", "transcript": None}
    assert [(one.then, one.item, one.how.detection) for one in desk.sounds] == [
        ("", "", None),
        ("commit", "mine", None),
        ("end", "", None),
    ]
    assert (told[0]["content_index"], told[0]["transcript"]) == (1, "a bell")
    assert [u.text for u in desk.turns[-1].conversation] == ["What is this?\na bell"]


def test_a_transcript_may_come_before_its_item_is_read() -> None:
    """Two topics have no common order: a transcript that is early is told right after its item."""
    desk = VoiceDesk()
    desk.listen(turn_detection=None)
    desk.hear()
    desk.session.receive(desk.codec.receive('{"type": "input_audio_buffer.commit"}'))
    out = desk.session.outgoing()
    item = next(one.message.item for one in out if isinstance(one.message, Sound) and one.message.then == "commit")

    early = desk.read(Transcribed("sess_1", desk.stream, item, "quick"))
    told = [event for one in out if one.partition is not None for event in desk.read(one.message)]

    assert early == []
    assert types(told) == [*COMMITTED, f"{TRANSCRIPTION}completed"]
    assert [one.text for one in desk.session.conversation] == ["quick"]


def test_a_stream_that_breaks_is_told_and_begun_anew() -> None:
    """When the speech stage gives a stream up, what was said in it has failed, and the next audio is another stream."""
    desk = VoiceDesk()
    desk.hear()
    broken = desk.stream
    desk.started("i1", 100)
    problem = Problem("overloaded", "too many streams", retry_after=3.0)

    told = desk.read(Finished("sess_1", broken, status="failed", problem=problem))
    before = len(desk.sounds)
    desk.hear(10)

    assert types(told) == ["input_audio_buffer.speech_stopped", *COMMITTED, f"{TRANSCRIPTION}failed", "error"]
    assert (told[-1]["error"]["code"], told[-1]["error"]["retry_after"]) == ("overloaded", 3.0)
    assert len(desk.sounds) == before  # not before it may be tried again
    assert desk.read(Finished("sess_1", broken, status="failed", problem=problem)) == []


# -- how to listen


@pytest.mark.parametrize(
    ("told", "how"),
    [
        ({"turn_detection": None}, Listening(partials=False)),
        ({}, Listening(detection=Detection(), partials=False)),
        ({"transcription": {"model": "whisper-99"}}, Listening(detection=Detection())),
        (
            {"transcription": {"language": "de-DE", "prompt": "Fjord"}, "format": {"type": "audio/pcmu"}},
            Listening("pcmu", Detection(), "de", "Fjord"),
        ),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 200}},
            Listening(detection=Detection(0.7, 300, 200), partials=False),
        ),
        (
            {"turn_detection": {"type": "semantic_vad"}},
            Listening(detection=Detection(eagerness="medium"), partials=False),
        ),
        (
            {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}, "noise_reduction": {"type": "far_field"}},
            Listening(detection=Detection(eagerness="low"), partials=False),
        ),
    ],
    ids=range(7),
)
def test_how_to_listen(told: dict[str, Any], how: Listening) -> None:
    """The configuration of the session is what the speech stage is told with each piece."""
    desk = VoiceDesk(transcribe=False)
    desk.listen(**told)

    desk.hear()

    assert desk.sounds[-1].how == how


# -- sessions that only transcribe


def test_a_session_that_only_transcribes() -> None:
    """It has items and transcripts, and no responses, of itself or asked for."""
    desk = VoiceDesk(transcribe=False)
    (updated,) = desk.send("session.update", session={"type": "transcription", "audio": {"input": {"format": None}}})

    told = desk.utter("i1", "just this")
    error = error_of(desk.send("response.create"))

    assert updated["session"]["type"] == "transcription"
    assert updated["session"]["object"] == "realtime.transcription_session"
    assert last(told, f"{TRANSCRIPTION}completed")["transcript"] == "just this"
    assert "only transcribes" in error["message"]
    assert desk.turns == []


def test_a_session_in_which_something_was_said_goes_on_as_it_is() -> None:
    """It cannot become one that only transcribes."""
    desk = VoiceDesk()
    desk.say("hi")

    assert error_of(desk.send("session.update", session={"type": "transcription"}))["param"] == "session.type"
    assert desk.session.config.view["type"] == "realtime"


# -- long silences


def test_a_long_silence_is_answered() -> None:
    """With `idle_timeout_ms` the silence after an answer that was played is an item, and is answered."""
    desk = VoiceDesk()
    desk.listen(turn_detection={"type": "server_vad", "idle_timeout_ms": 2000})
    desk.utter("i1", "hello")
    desk.speak(desk.turns[-1], "hello you", ms=1000)
    desk.hear(5000)
    assert desk.later(0.5) == []  # it is still played
    desk.hear(500)

    assert desk.later(1.1) == []
    desk.hear(1999)
    assert desk.later(1.2) == []
    desk.hear(1)
    told = desk.later(1.3)

    assert types(told) == ["input_audio_buffer.timeout_triggered", *COMMITTED, *BEGUN]
    assert (told[0]["audio_start_ms"], told[0]["audio_end_ms"]) == (6500, 8500)
    assert told[0]["item_id"] == told[1]["item_id"]
    assert [u.role for u in desk.turns[-1].conversation] == ["user", "assistant"]


def test_who_speaks_is_not_silent() -> None:
    """Speech ends the waiting for a silence."""
    desk = VoiceDesk()
    desk.listen(turn_detection={"type": "server_vad", "idle_timeout_ms": 2000})
    desk.utter("i1", "hello")
    desk.speak(desk.turns[-1])
    desk.later(1)
    desk.hear(1500)
    desk.started("i2", 2000)
    desk.hear(3000)

    assert desk.later(2) == []
    desk.stopped("i2", 4000)
    desk.transcribed("i2", "")
    assert desk.later(3) == []
    desk.hear(2000)
    assert types(desk.later(4))[:1] == ["input_audio_buffer.timeout_triggered"]
